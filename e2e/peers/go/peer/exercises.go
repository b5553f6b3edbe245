package main

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"time"
)

// MD5, because in an emulated guest it is the fastest there is.
type result struct {
	Bytes  int    `json:"bytes"`
	Digest string `json:"md5"`
}

type halfCloser interface{ CloseWrite() error }

// What a client does with connections of its own making. Each begins with one line, `<service> <bytes>`: the dialer speaks
// first. (firecracker-go-sdk loses what comes in one piece with OK.)
var exercises = map[string]func(dial func() (net.Conn, error), bytes int) (any, error){
	// Sends and reads the same back at once, then closes.
	"echo": single("echo", func(connection net.Conn, count int) (any, error) {
		return echoed(connection, noise(count))
	}),
	// Sends, ends its direction, and reads what the server answers then, to its end.
	"half-close": single("answer", func(connection net.Conn, count int) (any, error) {
		if err := sendAndEnd(connection, count); err != nil {
			return nil, err
		}
		answer, err := io.ReadAll(connection)
		return map[string]any{"answer": string(answer), "md5": digest(noise(count))}, err
	}),
	// Sends and closes at once.
	"close": single("answer", func(connection net.Conn, count int) (any, error) {
		_, err := connection.Write(noise(count))
		return result{count, digest(noise(count))}, err
	}),
	// Reads to the end.
	"read": single("source", func(connection net.Conn, _ int) (any, error) {
		all, err := io.ReadAll(connection)
		return result{len(all), digest(all)}, err
	}),
	// Sends for ever, to a peer that resets: the error that comes.
	"reset": single("reset", func(connection net.Conn, _ int) (any, error) {
		block := make([]byte, 1<<16)
		for {
			if _, err := connection.Write(block); err != nil {
				return map[string]any{"failed": err.Error()}, nil
			}
		}
	}),
	// So many connections, eight at a time, each of which says something and hears it.
	"connects": func(dial func() (net.Conn, error), count int) (any, error) {
		const width = 8
		failures := make(chan error, width)
		for worker := range width {
			go func() {
				for i := worker; i < count; i += width {
					if err := ping(dial, i); err != nil {
						failures <- fmt.Errorf("connection %d: %w", i, err)
						return
					}
				}
				failures <- nil
			}()
		}
		var all error
		for range width {
			all = errors.Join(all, <-failures)
		}
		return map[string]any{"connections": count}, all
	},
}

func serve(connection net.Conn) (any, error) {
	reader := bufio.NewReader(connection)
	line, err := reader.ReadString('\n')
	if err != nil {
		return nil, err
	}
	var name string
	var count int
	if _, err := fmt.Sscanf(line, "%s %d\n", &name, &count); err != nil {
		return nil, err
	}
	service, known := services[name]
	if !known {
		return nil, fmt.Errorf("%s: no such service", name)
	}
	return service(connection, reader, count)
}

// What a server does with a connection after its first line; it is closed afterwards.
var services = map[string]func(connection net.Conn, from io.Reader, bytes int) (any, error){
	"echo": func(connection net.Conn, from io.Reader, _ int) (any, error) {
		count, err := io.Copy(connection, from)
		return map[string]any{"bytes": count}, err
	},
	// Reads to the end, then answers how much it was.
	"answer": func(connection net.Conn, from io.Reader, _ int) (any, error) {
		all, err := io.ReadAll(from)
		if err != nil {
			return nil, err
		}
		_, err = fmt.Fprintf(connection, "%d %s", len(all), digest(all))
		return result{len(all), digest(all)}, err
	},
	// Sends, and ends.
	"source": func(connection net.Conn, _ io.Reader, count int) (any, error) {
		_, err := connection.Write(noise(count))
		return result{count, digest(noise(count))}, err
	},
	// Ends its direction first, then reads to the end.
	"ends-first": func(connection net.Conn, from io.Reader, count int) (any, error) {
		if err := sendAndEnd(connection, count); err != nil {
			return nil, err
		}
		all, err := io.ReadAll(from)
		return result{len(all), digest(all)}, err
	},
}

func single(service string, exercise func(net.Conn, int) (any, error)) func(func() (net.Conn, error), int) (any, error) {
	return func(dial func() (net.Conn, error), count int) (any, error) {
		connection, err := dial()
		if err != nil {
			return nil, err
		}
		defer connection.Close()
		// Nothing may hang for ever, and nothing here is slow.
		if err := connection.SetDeadline(time.Now().Add(100 * time.Second)); err != nil {
			return nil, err
		}
		if _, err := fmt.Fprintf(connection, "%s %d\n", service, count); err != nil {
			return nil, err
		}
		return exercise(connection, count)
	}
}

func sendAndEnd(connection net.Conn, count int) error {
	if _, err := connection.Write(noise(count)); err != nil {
		return err
	}
	return connection.(halfCloser).CloseWrite()
}

func echoed(connection net.Conn, sent []byte) (any, error) {
	failed := make(chan error, 1)
	go func() {
		_, err := connection.Write(sent)
		failed <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(connection, got); err != nil {
		return nil, errors.Join(err, <-failed)
	}
	if err := <-failed; err != nil {
		return nil, err
	}
	if !bytes.Equal(got, sent) {
		return nil, fmt.Errorf("%d bytes came back changed", len(got))
	}
	return result{len(got), digest(got)}, nil
}

func ping(dial func() (net.Conn, error), seed int) error {
	connection, err := dial()
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := fmt.Fprintf(connection, "echo 0\n"); err != nil {
		return err
	}
	_, err = echoed(connection, fmt.Appendf(nil, "connection %d", seed))
	return err
}

// The same bytes on each call; they repeat at no size of a packet or a page.
func noise(count int) []byte {
	all := make([]byte, count)
	rand.New(rand.NewSource(11)).Read(all)
	return all
}

func digest(all []byte) string {
	sum := md5.Sum(all)
	return hex.EncodeToString(sum[:])
}
