package lab_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

func TestPipeIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		c1, c2 = lab.Pipe()
		return c1, c2, func() { _ = c1.Close(); _ = c2.Close() }, nil
	})
}

func TestPipeAddresses(t *testing.T) {
	ca, sa := netip.MustParseAddrPort("127.0.0.1:1000"), netip.MustParseAddrPort("[::1]:443")
	client, server := lab.PipeAddr(ca, sa)
	if a := client.RemoteAddr().(*net.TCPAddr).AddrPort(); a != sa {
		t.Errorf("the client's remote address is %v", a)
	}
	if a := server.RemoteAddr().(*net.TCPAddr).AddrPort(); a != ca {
		t.Errorf("the server's remote address is %v", a)
	}
	if client.LocalAddr().String() != ca.String() || server.LocalAddr().String() != sa.String() {
		t.Error("local addresses differ")
	}
}

func TestPipeBuffersAndThenBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := lab.Pipe()
		start := time.Now()
		_ = client.SetWriteDeadline(start.Add(time.Second))
		n, err := client.Write(make([]byte, 1<<20))
		if n != 256<<10 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("wrote %d, %v, after %v", n, err, time.Since(start))
		}
		_ = client.Close()
		if b, err := io.ReadAll(server); len(b) != n || err != nil {
			t.Errorf("read %d, %v", len(b), err)
		}
		if _, err := server.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed end: %v", err)
		}
	})
}
