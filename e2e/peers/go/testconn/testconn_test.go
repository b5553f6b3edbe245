// Go's own tests of what a connection has to do, on connections that go through ours. The two ends are in one process, and
// whatever lies between them is told by the environment: it connects what is dialled to what is listened on.
//
//	UPCALL_DIAL    hvsock:<path>:<port> (firecracker-go-sdk dials) or vsock:<cid>:<port> (mdlayher/vsock)
//	UPCALL_LISTEN  unix:<path> (Go's net listens) or vsock:<port> (mdlayher/vsock)
//	UPCALL_SWAP    1: the tests' first end is the accepted one
package testconn

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	firecracker "github.com/firecracker-microvm/firecracker-go-sdk/vsock"
	"github.com/mdlayher/vsock"
	"golang.org/x/net/nettest"
)

func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		dialled, accepted, stop, err := pipe()
		if os.Getenv("UPCALL_SWAP") == "1" {
			return accepted, dialled, stop, err
		}
		return dialled, accepted, stop, err
	})
}

func pipe() (dialled, accepted net.Conn, stop func(), err error) {
	listener, err := listen(os.Getenv("UPCALL_LISTEN"))
	if err != nil {
		return nil, nil, nil, err
	}
	failed := make(chan error, 1)
	go func() {
		var err error
		dialled, err = dial(os.Getenv("UPCALL_DIAL"))
		if err != nil {
			listener.Close()
		}
		failed <- err
	}()
	accepted, err = listener.Accept()
	if err = errors.Join(<-failed, err); err != nil {
		return nil, nil, nil, errors.Join(err, listener.Close())
	}
	return dialled, accepted, func() {
		dialled.Close()
		accepted.Close()
		listener.Close()
	}, nil
}

func dial(address string) (net.Conn, error) {
	kind, rest, _ := strings.Cut(address, ":")
	at := strings.LastIndexByte(rest, ':')
	port, err := strconv.ParseUint(rest[at+1:], 10, 32)
	if err != nil {
		return nil, err
	}
	if kind == "hvsock" {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		interval := firecracker.WithRetryInterval(time.Microsecond)
		return firecracker.DialContext(ctx, rest[:at], uint32(port), interval, firecracker.WithAckMsgTimeout(20*time.Second))
	}
	cid, err := strconv.ParseUint(rest[:at], 10, 32)
	if err != nil {
		return nil, err
	}
	return vsock.Dial(uint32(cid), uint32(port), nil)
}

func listen(address string) (net.Listener, error) {
	kind, rest, _ := strings.Cut(address, ":")
	if kind == "unix" {
		return net.Listen("unix", rest)
	}
	port, err := strconv.ParseUint(rest, 10, 32)
	if err != nil {
		return nil, err
	}
	return vsock.Listen(uint32(port), nil)
}
