package main

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Does the work of a client of `peer vmm`, some of it first without measuring, and tells the seconds and the CPU seconds of
// this process that the rest took. The amounts are connections, round trips, or bytes.
func bench(path string, rest []string) error {
	if len(rest) < 2 {
		return fmt.Errorf("usage: peer bench <socket> connect|ping-pong|send|receive <amount>")
	}
	work, known := works[rest[0]]
	if !known {
		return fmt.Errorf("%s: no such work", rest[0])
	}
	total := amount(rest[1:])
	if err := work(path, total/10); err != nil {
		return err
	}
	start, cpu := time.Now(), cpuTime()
	if err := work(path, total); err != nil {
		return err
	}
	tell(map[string]any{"seconds": time.Since(start).Seconds(), "cpu": (cpuTime() - cpu).Seconds()})
	return nil
}

var works = map[string]func(path string, total int) error{
	"connect": func(path string, total int) error {
		for range total {
			connection, err := dialPort(path, echoPort)
			if err != nil {
				return err
			}
			connection.Close()
		}
		return nil
	},
	"ping-pong": func(path string, total int) error {
		return connected(path, echoPort, func(connection net.Conn) error {
			message := make([]byte, 1024)
			for range total {
				if _, err := connection.Write(message); err != nil {
					return err
				}
				if _, err := io.ReadFull(connection, message); err != nil {
					return err
				}
			}
			return nil
		})
	},
	"send": func(path string, total int) error {
		return connected(path, discardPort, func(connection net.Conn) error {
			block := make([]byte, 1<<16)
			for sent := 0; sent < total; sent += len(block) {
				if _, err := connection.Write(block); err != nil {
					return err
				}
			}
			// The server has read everything when it closes.
			if err := connection.(halfCloser).CloseWrite(); err != nil {
				return err
			}
			_, err := connection.Read(block)
			if err != io.EOF {
				return fmt.Errorf("after the end: %v", err)
			}
			return nil
		})
	},
	"receive": func(path string, total int) error {
		return connected(path, sourcePort, func(connection net.Conn) error {
			block := make([]byte, 1<<16)
			for received := 0; received < total; {
				count, err := connection.Read(block)
				if err != nil {
					return err
				}
				received += count
			}
			return nil
		})
	},
}

func dialPort(path string, port int) (net.Conn, error) {
	return dial(fmt.Sprintf("hvsock:%s:%d", path, port))
}

func connected(path string, port int, work func(net.Conn) error) error {
	connection, err := dialPort(path, port)
	if err != nil {
		return err
	}
	defer connection.Close()
	return work(connection)
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
