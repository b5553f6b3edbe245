package main

import (
	"bufio"
	"encoding/binary"
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
	// Sends for ever, until its peer has had enough.
	sourcePort = 5002
	// Answers every request to a guest's device manager with success.
	upcallPort = 219
)

// Of the device manager: all messages have this size, and these words at their beginning, little-endian.
const (
	messageSize = 1024
	magic       = 0x444d0100
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
	case upcallPort:
		obey(connection)
	}
}

// Waits for the service byte, greets, and then answers each request with its own type and the result 0.
func obey(connection net.Conn) {
	message := make([]byte, messageSize)
	if _, err := io.ReadFull(connection, message[:1]); err != nil {
		return
	}
	reply := make([]byte, messageSize)
	binary.LittleEndian.PutUint32(reply, magic)
	for {
		if _, err := connection.Write(reply); err != nil {
			return
		}
		if _, err := io.ReadFull(connection, message); err != nil {
			return
		}
		copy(reply[8:12], message[8:12])
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
