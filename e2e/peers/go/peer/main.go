// A client and a server of vsock streams, made of other people's packages: firecracker-go-sdk dials hybrid sockets and
// listens in a guest, mdlayher/vsock does both on AF_VSOCK. It prints one JSON object a line.
//
//	peer dial <address> <exercise> [bytes]    see exercises.go
//	peer serve <address>                      the services of exercises.go, until its stdin ends
//	peer vmm <socket>                         a hybrid socket, as a VMM has it: see vmm.go
//	peer bench <socket> <work> <amount>       see bench.go
//
// An address is hvsock:<path>:<port>, vsock:<cid>:<port>, sdk:<port> (the listener of firecracker-go-sdk) or unix:<path>.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	firecracker "github.com/firecracker-microvm/firecracker-go-sdk/vsock"
	"github.com/mdlayher/vsock"
)

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: peer dial|serve|vmm|bench <address> ..."))
	}
	command, address, rest := os.Args[1], os.Args[2], os.Args[3:]
	commands := map[string]func(string, []string) error{"dial": dialled, "serve": served, "vmm": vmm, "bench": bench}
	run, known := commands[command]
	if !known {
		fail(fmt.Errorf("%s: no such command", command))
	}
	if err := run(address, rest); err != nil {
		fail(err)
	}
}

func fail(err error) {
	tell(map[string]any{"error": err.Error()})
	os.Exit(1)
}

var telling sync.Mutex

func tell(value any) {
	telling.Lock()
	defer telling.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(value); err != nil {
		panic(err)
	}
}

func dialled(address string, rest []string) error {
	if len(rest) < 1 {
		return fmt.Errorf("usage: peer dial <address> <exercise> [bytes]")
	}
	exercise, known := exercises[rest[0]]
	if !known {
		return fmt.Errorf("%s: no such exercise", rest[0])
	}
	result, err := exercise(func() (net.Conn, error) { return dial(address) }, amount(rest[1:]))
	if err != nil {
		return err
	}
	tell(result)
	return nil
}

func served(address string, _ []string) error {
	listener, err := listen(address)
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				if done, err := serve(connection); err != nil {
					tell(map[string]any{"error": err.Error()})
				} else {
					tell(done)
				}
			}()
		}
	}()
	tell(map[string]any{"listening": address})
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func amount(words []string) int {
	if len(words) == 0 {
		return 0
	}
	count, err := strconv.Atoi(words[0])
	if err != nil {
		fail(err)
	}
	return count
}

func dial(address string) (net.Conn, error) {
	kind, first, port := parse(address)
	switch kind {
	case "hvsock":
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		// It waits this long before every attempt, the first one included.
		interval := firecracker.WithRetryInterval(time.Microsecond)
		return firecracker.DialContext(ctx, first, port, interval, firecracker.WithAckMsgTimeout(20*time.Second))
	case "vsock":
		return vsock.Dial(number(first), port, nil)
	case "unix":
		return net.Dial("unix", first)
	}
	return nil, fmt.Errorf("%s: cannot be dialled", address)
}

func listen(address string) (net.Listener, error) {
	kind, first, port := parse(address)
	switch kind {
	case "sdk":
		return firecracker.Listener(context.Background(), nil, port)
	case "vsock":
		return vsock.ListenContextID(number(first), port, nil)
	case "unix":
		return net.Listen("unix", first)
	}
	return nil, fmt.Errorf("%s: cannot be listened on", address)
}

func parse(address string) (kind, first string, port uint32) {
	kind, rest, _ := strings.Cut(address, ":")
	if kind == "unix" {
		return kind, rest, 0
	}
	if kind == "sdk" {
		return kind, "", number(rest)
	}
	at := strings.LastIndexByte(rest, ':')
	return kind, rest[:max(at, 0)], number(rest[at+1:])
}

func number(text string) uint32 {
	value, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		fail(err)
	}
	return uint32(value)
}
