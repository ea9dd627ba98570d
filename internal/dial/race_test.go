package dial_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/h2coalesce/h2coalesce/internal/dial"
)

const (
	v4a = "192.0.2.1"
	v4b = "192.0.2.2"
	v4c = "192.0.2.3"
	v6a = "2001:db8::1"
	v6b = "2001:db8::2"
)

// A host says what an address does when it is dialed.
type host struct {
	after time.Duration // then it answers
	err   error         // nil: it accepts
	deaf  bool          // the dial does not notice that its context ended
}

// A call is one call of the dial function: when, and how long it was given,
// zero if there was no limit.
type call struct {
	Addr      string
	At, Limit time.Duration
}

// A fakeNet is what a Dialer under test dials. An address without a host
// swallows everything.
type fakeNet struct {
	hosts  map[string]host
	server *tls.Config
	began  time.Time

	mu    sync.Mutex
	calls []call
	open  int // calls that have not returned
	most  int // of them at once
	conns map[string]*spy
	wg    sync.WaitGroup
}

func newFakeNet(server *tls.Config, hosts map[string]host) *fakeNet {
	return &fakeNet{hosts: hosts, server: server, began: time.Now(), conns: make(map[string]*spy)}
}

func (n *fakeNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ap := netip.MustParseAddrPort(addr)
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(ap), Err: err}
	}
	c := call{Addr: ap.Addr().String(), At: time.Since(n.began)}
	if deadline, ok := ctx.Deadline(); ok {
		c.Limit = time.Until(deadline)
	}
	n.mu.Lock()
	n.calls = append(n.calls, c)
	n.open++
	n.most = max(n.most, n.open)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.open--
	}()

	h, ok := n.hosts[c.Addr]
	if !ok {
		<-ctx.Done()
		return fail(ctx.Err())
	}
	if h.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case <-time.After(h.after):
	case <-ctx.Done():
		return fail(ctx.Err())
	}
	if h.err != nil {
		return fail(h.err)
	}
	client, server := net.Pipe()
	conn := newSpy(client)
	n.mu.Lock()
	n.conns[c.Addr] = conn
	n.mu.Unlock()
	n.wg.Go(func() { serveTLS(server, n.server) })
	return conn, nil
}

// outcome is what a Dial did, and when.
type outcome struct {
	*dial.Result
	err   error
	after time.Duration
}

// run dials addrs through n and returns after every goroutine of it ended.
func (n *fakeNet) run(t *testing.T, ctx context.Context, roots *tls.Config, addrs ...string) outcome {
	t.Helper()
	return n.runFrom(t, ctx, &http.Transport{TLSClientConfig: roots}, addrs...)
}

// runFrom is run for any base without a dial function of its own.
func (n *fakeNet) runFrom(t *testing.T, ctx context.Context, base *http.Transport, addrs ...string) outcome {
	t.Helper()
	d := dial.New(base, nil)
	d.SetDialAddr(n.dial)
	to := dial.Target{Host: "a.example", Port: 443}
	for _, addr := range addrs {
		to.Addrs = append(to.Addrs, netip.MustParseAddr(addr))
	}
	r, err := d.Dial(ctx, to)
	o := outcome{r, err, time.Since(n.began)}
	d.Wait()
	return o
}

// wantLimits expects calls that were given as long.
func (n *fakeNet) wantLimits(t *testing.T, want ...time.Duration) {
	t.Helper()
	var limits []time.Duration
	for _, c := range n.calls {
		limits = append(limits, c.Limit)
	}
	if diff := cmp.Diff(want, limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}

var refused error = os.NewSyscallError("connect", syscall.ECONNREFUSED)

func TestP8_Race(t *testing.T) {
	ca := newAuthority(t)
	server := ca.Server(t, "a.example")
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }

	tests := []struct {
		name   string
		addrs  []string
		hosts  map[string]host
		calls  []call
		winner string
		after  time.Duration
	}{{
		name:   "a single address",
		addrs:  []string{v4a},
		hosts:  map[string]host{v4a: {after: ms(30)}},
		calls:  []call{{Addr: v4a}},
		winner: v4a,
		after:  ms(30),
	}, {
		name:   "the first answers within its head start",
		addrs:  []string{v6a, v4a},
		hosts:  map[string]host{v6a: {after: ms(249)}, v4a: {}},
		calls:  []call{{Addr: v6a}},
		winner: v6a,
		after:  ms(249),
	}, {
		name:   "each has 250 ms of head start",
		addrs:  []string{v6a, v6b, v4a, v4b},
		hosts:  map[string]host{v4b: {after: ms(10)}},
		calls:  []call{{Addr: v6a}, {Addr: v4a, At: ms(250)}, {Addr: v6b, At: ms(500)}, {Addr: v4b, At: ms(750)}},
		winner: v4b,
		after:  ms(760),
	}, {
		name:   "a slow address still wins",
		addrs:  []string{v6a, v4a},
		hosts:  map[string]host{v6a: {after: ms(300)}, v4a: {after: ms(300)}},
		calls:  []call{{Addr: v6a}, {Addr: v4a, At: ms(250)}},
		winner: v6a,
		after:  ms(300),
	}, {
		name:   "a failure starts the next at once, and its head start anew",
		addrs:  []string{v4a, v4b, v4c},
		hosts:  map[string]host{v4a: {after: ms(20), err: refused}, v4c: {after: ms(5)}},
		calls:  []call{{Addr: v4a}, {Addr: v4b, At: ms(20)}, {Addr: v4c, At: ms(270)}},
		winner: v4c,
		after:  ms(275),
	}, {
		name:   "an older failure leaves the attempt after it its head start",
		addrs:  []string{v4a, v4b, v4c},
		hosts:  map[string]host{v4a: {after: ms(255), err: refused}, v4b: {after: ms(240)}, v4c: {}},
		calls:  []call{{Addr: v4a}, {Addr: v4b, At: ms(250)}},
		winner: v4b,
		after:  ms(490),
	}, {
		name:   "a failure after the head start begins nothing",
		addrs:  []string{v4a, v4b, v6a},
		hosts:  map[string]host{v4a: {after: ms(300), err: refused}, v4b: {after: ms(10)}},
		calls:  []call{{Addr: v4a}, {Addr: v6a, At: ms(250)}, {Addr: v4b, At: ms(500)}},
		winner: v4b,
		after:  ms(510),
	}, {
		name:   "one family alone",
		addrs:  []string{v6b, v6a},
		hosts:  map[string]host{v6b: {after: ms(10), err: refused}, v6a: {after: ms(10)}},
		calls:  []call{{Addr: v6b}, {Addr: v6a, At: ms(10)}},
		winner: v6a,
		after:  ms(20),
	}, {
		name:   "families alternate, beginning with the first",
		addrs:  []string{v4a, v4b, v4c, v6a},
		hosts:  map[string]host{v4a: {err: refused}, v6a: {err: refused}, v4b: {err: refused}, v4c: {}},
		calls:  []call{{Addr: v4a}, {Addr: v6a}, {Addr: v4b}, {Addr: v4c}},
		winner: v4c,
	}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newFakeNet(server, test.hosts)
				o := n.run(t, t.Context(), &tls.Config{RootCAs: ca.Pool}, test.addrs...)
				if o.err != nil {
					t.Fatal(o.err)
				}
				if diff := cmp.Diff(test.calls, n.calls); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
				if o.after != test.after {
					t.Errorf("connected after %v, want %v", o.after, test.after)
				}
				if c := n.conns[test.winner]; c == nil || o.Conn.(*tls.Conn).NetConn() != c || c.Closed() {
					t.Errorf("the connection is not the open one of %s", test.winner)
				}
				o.Conn.Close()
				n.wg.Wait()
			})
		})
	}
}

func TestP8_LateLoserIsClosed(t *testing.T) {
	ca := newAuthority(t)
	server := ca.Server(t, "a.example")
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(server, map[string]host{
			v6a: {after: time.Second, deaf: true},
			v4a: {after: 10 * time.Millisecond},
		})
		o := n.run(t, t.Context(), &tls.Config{RootCAs: ca.Pool}, v6a, v4a)
		if o.err != nil {
			t.Fatal(o.err)
		}
		if want := 260 * time.Millisecond; o.after != want {
			t.Errorf("connected after %v, want %v: Dial waited for the loser", o.after, want)
		}
		if waited := time.Since(n.began); waited != time.Second {
			t.Errorf("Wait returned after %v, want 1s", waited)
		}
		if c := n.conns[v6a]; c == nil || !c.Closed() {
			t.Error("the loser's connection is open")
		}
		if n.conns[v4a].Closed() {
			t.Error("the winner's connection is closed")
		}
		o.Conn.Close()
		n.wg.Wait()
	})
}

func TestP8_CancelEndsTheRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(nil, map[string]host{
			v6a: {after: time.Second, deaf: true},
			v4a: {after: 2 * time.Second, err: refused, deaf: true},
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(300*time.Millisecond, cancel)
		o := n.run(t, ctx, nil, v6a, v6b, v4a)
		if want := 300 * time.Millisecond; o.after != want {
			t.Errorf("returned after %v, want %v", o.after, want)
		}
		if !errors.Is(o.err, context.Canceled) {
			t.Errorf("error %v is not context.Canceled", o.err)
		}
		want := "dial tcp: [2001:db8::1]:443: operation was canceled; 192.0.2.1:443: operation was canceled"
		if got := o.err.Error(); got != want {
			t.Errorf("error %q, want %q", got, want)
		}
		if c := n.conns[v6a]; c == nil || !c.Closed() {
			t.Error("the connection that came after the end is open")
		}
		n.wg.Wait()
	})
}

func TestP8_ContextOverBeforeTheFirst(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := newFakeNet(nil, nil)
	o := n.run(t, ctx, nil, v4a, v4b)
	if as[*net.OpError](t, o.err); !errors.Is(o.err, context.Canceled) {
		t.Errorf("error %v is not context.Canceled", o.err)
	}
	if len(n.calls) != 0 {
		t.Errorf("dialed %v", n.calls)
	}
}

func TestP8_ShareOfTheDeadline(t *testing.T) {
	const s = time.Second
	tests := []struct {
		name     string
		deadline time.Duration
		limits   []time.Duration // of the attempts at 0, 250 and 500 ms
	}{
		{"equal parts of what is left", 12 * s, []time.Duration{4 * s, 5875 * time.Millisecond, 11500 * time.Millisecond}},
		{"at least two seconds", 5 * s, []time.Duration{2 * s, 2375 * time.Millisecond, 4500 * time.Millisecond}},
		{"never beyond the deadline", 1 * s, []time.Duration{1 * s, 750 * time.Millisecond, 500 * time.Millisecond}},
		{"none without a deadline", 0, []time.Duration{0, 0, 0}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.deadline != 0 {
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				} else {
					time.AfterFunc(time.Minute, cancel)
				}
				n := newFakeNet(nil, nil)
				o := n.run(t, ctx, nil, v4a, v4b, v4c)
				if test.deadline != 0 {
					if o.after != test.deadline {
						t.Errorf("returned after %v, want %v", o.after, test.deadline)
					}
					if e := as[net.Error](t, o.err); !e.Timeout() || !errors.Is(o.err, context.DeadlineExceeded) {
						t.Errorf("error %v is no timeout", o.err)
					}
				}
				n.wantLimits(t, test.limits...)
			})
		})
	}
}

func TestP8_ErrorNamesEveryAddress(t *testing.T) {
	unreachable := os.NewSyscallError("connect", syscall.ENETUNREACH)
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(nil, map[string]host{
			v6a: {err: unreachable},
			v4a: {err: refused},
			v4b: {err: os.ErrDeadlineExceeded},
		})
		o := n.run(t, t.Context(), nil, v6a, v4a, v4b)
		const want = "dial tcp: [2001:db8::1]:443: connect: network is unreachable; " +
			"192.0.2.1:443: connect: connection refused; 192.0.2.2:443: i/o timeout"
		if o.err == nil || o.err.Error() != want {
			t.Fatalf("error %q, want %q", o.err, want)
		}
		op, ok := o.err.(*net.OpError)
		if !ok {
			t.Fatalf("error is a %T, want a *net.OpError", o.err)
		}
		if !op.Timeout() || !op.Temporary() {
			t.Error("one address timed out and the error does not say so")
		}
		for _, errno := range []error{syscall.ECONNREFUSED, syscall.ENETUNREACH, os.ErrDeadlineExceeded} {
			if !errors.Is(o.err, errno) {
				t.Errorf("error does not hold %v", errno)
			}
		}
	})
}

func TestP8_SingleFailureIsItself(t *testing.T) {
	want := &net.OpError{Op: "dial", Net: "tcp", Err: refused}
	d := dial.New(&http.Transport{}, nil)
	d.SetDialAddr(func(context.Context, string, string) (net.Conn, error) { return nil, want })
	_, err := d.Dial(t.Context(), target("a.example", netip.MustParseAddrPort("192.0.2.1:443")))
	if err != want {
		t.Errorf("got %v, want the dial function's error itself", err)
	}
}

func TestP8_WithoutAddressesTheNameIsDialed(t *testing.T) {
	d := dial.New(&http.Transport{}, nil)
	d.SetDialAddr(func(_ context.Context, network, addr string) (net.Conn, error) {
		if network != "tcp" || addr != "a.example:443" {
			t.Errorf("dialed %q, %q", network, addr)
		}
		return nil, refused
	})
	if _, err := d.Dial(t.Context(), dial.Target{Host: "a.example", Port: 443}); err != refused {
		t.Errorf("got %v, want %v", err, refused)
	}
}

// stock returns a base that dials as http.DefaultTransport does.
func stock() *http.Transport { return http.DefaultTransport.(*http.Transport).Clone() }

// TestP8_StockTimeout: the stock dialer gives up after 30 seconds, however many
// addresses there are, and gives each its share of them.
func TestP8_StockTimeout(t *testing.T) {
	for _, test := range []struct {
		addrs  []string
		text   string
		limits []time.Duration
	}{
		{[]string{v4a}, "dial tcp 192.0.2.1:443: i/o timeout", []time.Duration{30 * time.Second}},
		{
			[]string{v4a, v6a}, "dial tcp: 192.0.2.1:443: i/o timeout; [2001:db8::1]:443: i/o timeout",
			[]time.Duration{15 * time.Second, 29750 * time.Millisecond},
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newFakeNet(nil, map[string]host{v4a: {after: time.Hour, deaf: true}, v6a: {after: time.Hour, deaf: true}})
			o := n.runFrom(t, t.Context(), stock(), test.addrs...)
			if o.after != 30*time.Second {
				t.Errorf("returned after %v, want 30s", o.after)
			}
			if o.err == nil || o.err.Error() != test.text {
				t.Errorf("error %q, want %q", o.err, test.text)
			}
			if e := as[*net.OpError](t, o.err); !e.Timeout() || !e.Temporary() || !errors.Is(o.err, context.DeadlineExceeded) {
				t.Errorf("error %v is no timeout", o.err)
			}
			n.wantLimits(t, test.limits...)
		})
	}
}
