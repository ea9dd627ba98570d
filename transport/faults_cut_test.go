package transport_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A lossyConn goes dead when so many bytes have passed in one direction, and is
// closed a moment later.
type lossyConn struct {
	net.Conn
	up, down int // bytes left; negative: any number
	dead     sync.Once
	closed   context.Context
	close    context.CancelFunc
}

func (c *lossyConn) die() {
	c.dead.Do(func() { time.AfterFunc(pause, func() { c.Close() }) })
}

func (c *lossyConn) Close() error {
	c.close()
	return c.Conn.Close()
}

func (c *lossyConn) Read(p []byte) (int, error) {
	if c.down == 0 {
		c.die()
		<-c.closed.Done()
	}
	if c.down > 0 {
		p = p[:min(len(p), c.down)]
	}
	n, err := c.Conn.Read(p)
	if c.down > 0 {
		c.down -= n
	}
	if c.closed.Err() != nil {
		return 0, io.EOF // as if the other side had closed it
	}
	return n, err
}

// Write takes what the connection does not carry any more, as a socket does.
func (c *lossyConn) Write(p []byte) (int, error) {
	if c.up < 0 {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:min(len(p), c.up)])
	if err != nil {
		return n, err
	}
	if c.up -= n; c.up == 0 {
		c.die()
	}
	return len(p), nil
}

// TestP6_ACutAfterAnyNumberOfBytes cuts the connection that is dialed for a
// request, from the first byte of the handshake to the last one of the answer.
// As with net/http a request that was on its way is never sent again. How many
// bytes there are depends on the signatures, so it is the outcomes in all that
// are compared.
func TestP6_ACutAfterAnyNumberOfBytes(t *testing.T) {
	for _, k := range kinds[:2] {
		for _, test := range []struct {
			name string
			pass func(n int) (up, down int)
			want []string
		}{
			{"up", func(n int) (int, int) { return n, -1 }, []string{"error: EOF", "error: unexpected EOF", "once: "}},
			{"down", func(n int) (int, int) { return -1, n }, []string{"error: EOF", "error: unexpected EOF", "once: ", "part: unexpected EOF"}},
		} {
			t.Run(k.name+", "+test.name, func(t *testing.T) {
				if diff := cmp.Diff(test.want, outcomesOfCuts(t, k, false, test.pass)); diff != "" {
					t.Errorf("outcomes (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(test.want, outcomesOfCuts(t, k, true, test.pass)); diff != "" {
					t.Errorf("net/http's outcomes (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// outcomesOfCuts lets ever more bytes pass, until there are enough.
func outcomesOfCuts(t *testing.T, k kind, nethttp bool, pass func(n int) (up, down int)) []string {
	seen := make(map[string]bool)
	for n, answered := 0, 0; answered < 4; n += 23 {
		up, down := pass(n)
		o := (&fault{kind: k}).cutAfter(t, nethttp, up, down)
		seen[o.word+": "+o.err] = true
		if o.word == "once" {
			answered++
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// cutAfter sends the request on a first connection that is cut.
func (f *fault) cutAfter(t *testing.T, nethttp bool, up, down int) (o outcome) {
	withClient(t, nethttp, f.servers(), func(c client) {
		dials := 0
		c.base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := c.DialContext(ctx, network, addr)
			if dials++; dials > 1 || err != nil {
				return conn, err
			}
			lossy := &lossyConn{Conn: conn, up: up, down: down}
			lossy.closed, lossy.close = context.WithCancel(context.Background())
			return lossy, nil
		}
		begun := time.Now()
		a := c.result(f.request(c.t.Context(), c.rig))
		o = outcomeOf(a, f.written.Load(), time.Since(begun))
		synctest.Wait()
		where := fmt.Sprintf("up %d, down %d: %+v", up, down, o)
		if n := f.arrived.Load(); n > 1 || n == 0 && a.status != 0 || dials != 1 {
			t.Errorf("%s: it arrived %d times, on %d connections", where, n, dials)
		}
		for _, b := range f.bodies {
			if n := b.closes.Load(); n != 1 {
				t.Errorf("%s: the body was closed %d times", where, n)
			}
		}
		whole, _ := f.want()
		if a.err == nil && (a.body != whole || o.took != 0) || !strings.HasPrefix(whole, a.body) {
			t.Errorf("%s: got %q", where, a.body)
		}
		if a.err != nil && o.took != pause {
			t.Errorf("%s, want it after %v", where, pause)
		}
		c.settled()
	})
	return o
}
