package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

// Ports of the hybrid socket, all of them for benches.
const (
	echoPort    = 5000
	discardPort = 5001
	// 5002 sends for ever, until its peer has had enough.
	sourcePort = 5002
)

// A hybrid socket in the fewest calls, the same server for all clients that are measured.
func vmm(path string, _ []string) error {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go answer(connection.(*net.UnixConn))
		}
	}()
	tell(map[string]any{"listening": path})
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func answer(connection *net.UnixConn) {
	defer connection.Close()
	// The client says nothing before OK, so nothing else is in this buffer.
	line, err := bufio.NewReaderSize(connection, 32).ReadString('\n')
	if err != nil {
		return
	}
	port, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(line), "CONNECT "))
	if err != nil {
		return
	}
	fmt.Fprintf(connection, "OK 1073741824\n")
	buffer := make([]byte, 1<<16)
	switch port {
	case echoPort:
		transfer(connection, connection, buffer)
	case discardPort:
		transfer(io.Discard, connection, buffer)
	case sourcePort:
		for err = nil; err == nil; {
			_, err = connection.Write(buffer)
		}
	}
}

// io.Copy would take splice, which costs the client nothing and hides what the client does.
func transfer(to io.Writer, from io.Reader, buffer []byte) {
	for {
		count, err := from.Read(buffer)
		if count > 0 {
			if _, err := to.Write(buffer[:count]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
