package pool_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// apart announces hosts that have nothing in common.
func (r *rig) apart(hosts ...string) {
	for i, h := range hosts {
		r.host(leaf(h), netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), h)
	}
}

func openHosts(r *rig) (hosts []string) {
	synctest.Wait()
	for _, c := range r.open() {
		hosts = append(hosts, c.host)
	}
	return hosts
}

func wantOpen(t *testing.T, r *rig, hosts ...string) {
	t.Helper()
	if got := openHosts(r); !slices.Equal(got, hosts) {
		t.Errorf("open: %q, want %q", got, hosts)
	}
	if got := r.Stats().Conns; got != len(hosts) {
		t.Errorf("Stats.Conns = %d, want %d", got, len(hosts))
	}
}

// P5: the least recently used idle connection makes room.
func TestP5_LeastRecentlyUsedMakesRoom(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test", "d.test")
		for _, h := range []string{"a.test", "b.test", "c.test"} {
			r.get(h).end()
			time.Sleep(time.Second)
		}
		r.get("a.test").end() // b has been idle for longest now
		d := r.get("d.test")
		if d.took != handshake {
			t.Errorf("d after %v", d.took)
		}
		wantOpen(t, r, "a.test", "c.test", "d.test")
		d.end()
		c := r.get("c.test")
		r.get("b.test")
		wantOpen(t, r, "c.test", "d.test", "b.test")
		c.end()
		if s := r.Stats(); s.Evicted != 2 {
			t.Errorf("Evicted = %d", s.Evicted)
		}
	}, limits(pool.Limits{MaxConns: 3}))
}

// P5: if none is idle the request waits, and gets the first that becomes idle.
func TestP5_WaitsIfNoneIsIdle(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test", "d.test")
		a, b := r.get("a.test"), r.get("b.test")
		c, d := r.goGet("c.test"), r.goGet("d.test")
		time.Sleep(time.Minute)
		wantWaiting(t, c, d)
		r.wantDials(2)
		b.end()
		time.Sleep(handshake)
		wantServed(t, c)
		wantWaiting(t, d)
		wantOpen(t, r, "a.test", "c.test")
		a.end()
		time.Sleep(handshake)
		wantServed(t, d)
		if s := r.Stats(); s.Evicted != 2 {
			t.Errorf("Evicted = %d", s.Evicted)
		}
	}, limits(pool.Limits{MaxConns: 2}))
}

// P8, P5: a request that has waited long dials its host's addresses, not
// those that something else finds.
func TestP5_LongWaitKeepsTheAddresses(t *testing.T) {
	for _, wait := range []time.Duration{11 * time.Second, time.Hour} {
		bubble(t, func(t *testing.T, r *rig) {
			r.apart("a.test", "b.test")
			a := r.get("a.test")
			b := r.goGet("b.test")
			time.Sleep(wait)
			wantWaiting(t, b)
			a.end()
			time.Sleep(handshake)
			wantServed(t, b)
			if d := r.lastDial(); !slices.Equal(d.Addrs, r.dns["b.test"]) {
				t.Errorf("after %v: dialed %v, want %v", wait, d.Addrs, r.dns["b.test"])
			}
		}, one)
	}
}

// P5: a failed dial gives its place to the next.
func TestP5_FailedDialMakesRoom(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test")
		r.dialErr["a.test"] = errRefused
		r.dialErr["b.test"] = errRefused
		calls := r.goGetAll("a.test", "b.test", "c.test")
		time.Sleep(3 * handshake)
		wantServed(t, calls[2])
		if calls[2].took != 3*handshake {
			t.Errorf("after %v", calls[2].took)
		}
	}, one)
}

// P5: a connection counts until its Close has returned.
func TestP5_ClosingConnectionsCount(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test")
		r.closing = time.Second
		r.get("a.test").end()
		b := r.goGet("b.test")
		time.Sleep(time.Second - 1)
		wantWaiting(t, b)
		r.wantDials(1)
		time.Sleep(time.Nanosecond)
		r.wantDials(2)
		time.Sleep(handshake)
		wantServed(t, b)
		b.end()
		// Two want the place of one: it is closed once.
		c, a := r.goGet("c.test"), r.goGet("a.test")
		time.Sleep(time.Second + handshake)
		wantServed(t, c)
		wantWaiting(t, a)
		if s := r.Stats(); s.Evicted != 2 {
			t.Errorf("Evicted = %d", s.Evicted)
		}
	}, one)
}

// P5, M1: the retry of a 421 wants a connection of its own while MaxConns
// leaves room for one only.
func TestP5_MisdirectedWithOneConnection(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.get("a.test").end()
		b := r.get("b.test")
		if !b.lease.Misdirected() {
			t.Fatal("no retry")
		}
		b.end()
		q := own("b.test")
		q.Avoid = b.lease.ID()
		if c := r.do(q); c.took != handshake || c.lease.ID() != 2 {
			t.Errorf("on %d after %v", c.lease.ID(), c.took)
		}
	}, one)
	// The same with the connection in use by another: when that ends.
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		a, b := r.get("a.test"), r.get("b.test")
		b.lease.Misdirected()
		b.end()
		q := own("b.test")
		q.Avoid = b.lease.ID()
		c := r.goDo(q)
		time.Sleep(time.Minute)
		wantWaiting(t, c)
		a.end()
		time.Sleep(handshake)
		wantServed(t, c)
	}, one)
	// The 421 came from the host's own connection.
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.get("a.test").end()
		a := r.get("a.test")
		a.lease.Misdirected()
		a.end()
		q := own("a.test")
		q.Avoid = a.lease.ID()
		if c := r.do(q); c.lease.ID() != 2 || c.took != handshake {
			t.Errorf("on %d after %v", c.lease.ID(), c.took)
		}
	}, one)
}

func TestP5_MaxConnsPerHost(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.maxStreams = 1
		calls := r.goGetAll("a.test", "a.test", "a.test", "a.test", "b.test")
		time.Sleep(handshake)
		time.Sleep(handshake)
		wantServed(t, calls[0], calls[1], calls[4])
		wantWaiting(t, calls[2], calls[3])
		r.wantDials(3)
		calls[1].end()
		wantServed(t, calls[2])
		calls[0].conn().die()
		time.Sleep(handshake)
		wantServed(t, calls[3])
		// A partition has a count of its own.
		q := request("a.test")
		q.Partition = "p"
		r.do(q)
		r.SetLimits(pool.Limits{MaxConnsPerHost: 3})
		r.get("a.test")
	}, limits(pool.Limits{MaxConnsPerHost: 2}))
}

// MaxConnsPerHost 1 and the retry of a 421 from that one connection: it gives
// up its place, for the others on it in their time.
func TestP5_MaxConnsPerHostWithAvoid(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		other := r.get("a.test")
		a := r.get("a.test")
		a.lease.Misdirected()
		a.end()
		q := own("a.test")
		q.Avoid = a.lease.ID()
		retry, next := r.goDo(q), r.goGet("a.test")
		wantWaiting(t, retry, next)
		other.end()
		time.Sleep(handshake)
		wantServed(t, retry, next)
		if retry.lease.ID() != 2 || next.lease.ID() != 2 {
			t.Errorf("on %d and %d", retry.lease.ID(), next.lease.ID())
		}
	}, limits(pool.Limits{MaxConnsPerHost: 1}))
}

// P5: where the room made for one request goes to another that came first, more is
// made.
func TestP5_RoomTakenByAnEarlierRequest(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test")
		r.get("a.test").end()
		r.get("b.test").end()
		r.conn(0).settings(0)
		a := r.goGet("a.test") // waits for a stream, and when that is closed for MaxConnsPerHost
		c := r.goGet("c.test")
		time.Sleep(handshake)
		wantServed(t, a, c)
	}, limits(pool.Limits{MaxConns: 2, MaxConnsPerHost: 1}))
}

// A request that MaxConnsPerHost keeps from dialing takes nobody's connection,
// though MaxConns kept it from dialing before.
func TestP5_NoEvictionInVain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.get("a.test")
		b1, b2 := r.get("b.test"), r.get("b.test")
		line := r.goGetAll("a.test", "a.test")
		wantWaiting(t, line...) // MaxConns
		b1.end()
		time.Sleep(handshake)
		wantServed(t, line[0])
		wantWaiting(t, line[1]) // MaxConnsPerHost
		b2.end()
		time.Sleep(time.Minute)
		wantWaiting(t, line[1])
		wantOpen(t, r, "a.test", "b.test", "a.test")
		r.check()
	}, limits(pool.Limits{MaxConns: 3, MaxConnsPerHost: 2, MaxStreamsPerConn: 1}))
}

func TestP5_MaxIdleConns(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test", "d.test")
		var calls []*call
		for _, h := range []string{"a.test", "b.test", "c.test", "d.test"} {
			calls = append(calls, r.get(h))
		}
		for _, i := range []int{2, 0, 3} {
			calls[i].end()
		}
		wantOpen(t, r, "a.test", "b.test", "d.test")
		calls[1].end()
		wantOpen(t, r, "b.test", "d.test")
		if s := r.Stats(); s.Idle != 2 || s.Evicted != 2 {
			t.Errorf("%+v", s)
		}
	}, limits(pool.Limits{MaxIdleConns: 2}))
}

// IdleTimeout is exact, and counts from the last request's end.
func TestP5_IdleTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test")
		alive := func(after time.Duration, want bool) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := !r.conn(0).isClosed(); got != want {
				t.Fatalf("open %t, want %t", got, want)
			}
		}
		r.get("a.test").end()
		alive(40*time.Second, true)
		r.get("a.test").end()
		alive(59*time.Second, true)
		busy := r.get("a.test")
		alive(time.Hour, true)
		busy.end()
		alive(time.Minute-1, true)
		alive(1, false)
		r.check()
		if s := r.Stats(); s.Conns != 0 || s.Evicted != 0 || r.Sizes() != (pool.Sizes{}) {
			t.Errorf("%+v, %+v", s, r.Sizes())
		}
	}, limits(pool.Limits{IdleTimeout: time.Minute}))
}

// A dial that nobody waits for any more leaves an idle connection.
func TestP5_IdleTimeoutOfUnusedConnection(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test")
		a := r.goGet("a.test")
		a.cancel(nil)
		<-a.done
		time.Sleep(handshake + time.Minute - 1)
		wantOpen(t, r, "a.test")
		time.Sleep(time.Nanosecond)
		wantOpen(t, r)
	}, limits(pool.Limits{IdleTimeout: time.Minute}))
}

// MaxAge is exact: at that age a connection takes no more requests, and is
// closed when those under way have ended.
func TestP5_MaxAge(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test")
		a := r.get("a.test")
		time.Sleep(time.Minute - 1)
		b := r.get("a.test")
		if b.lease.ID() != 1 {
			t.Error("too early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		c := r.get("a.test")
		if c.lease.ID() != 2 || r.conn(0).isClosed() {
			t.Errorf("on %d, closed %t", c.lease.ID(), r.conn(0).isClosed())
		}
		a.end()
		synctest.Wait()
		if r.conn(0).isClosed() {
			t.Error("closed with a request under way")
		}
		b.end()
		c.end()
		wantOpen(t, r, "a.test")
		time.Sleep(time.Minute)
		wantOpen(t, r)
	}, limits(pool.Limits{MaxAge: time.Minute}))
}

// Negative limits are none.
func TestP5_NegativeLimits(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared(names("h%d.test", 20)...)
		for _, h := range names("h%d.test", 20) {
			r.get(h)
			r.do(own(h)).end()
		}
		time.Sleep(24 * time.Hour)
		if got := len(r.open()); got != 20 {
			t.Errorf("%d open", got)
		}
	}, limits(pool.Limits{-1, -1, -1, -1, -1, -1, -1}))
}

// P4, P5: a thousand requests for fifty hosts through three connections of
// five streams.
func TestP5_ManyThroughFew(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		hosts := names("h%d.test", 50)
		r.apart(hosts...)
		r.maxStreams = 5
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		done := make(chan error)
		for i := range 1000 {
			go func() {
				l, err := r.Get(ctx, request(hosts[i%len(hosts)]))
				if err == nil {
					time.Sleep(time.Duration(i%7+1) * time.Millisecond)
					c := l.Conn().(*fakeConn)
					c.mu.Lock()
					c.streams--
					c.mu.Unlock()
					l.Release()
				}
				done <- err
			}()
		}
		for range 1000 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if s := r.Stats(); s.Streams != 0 || s.Waiting != 0 || s.Conns > 3 {
			t.Errorf("%+v", s)
		}
	}, limits(pool.Limits{MaxConns: 3}))
}

// P5, C8: a connection that other hosts wait to share when its SETTINGS come is
// not idle: it is neither closed for others nor counted against MaxIdleConns.
func TestP5_WaitedForIsNotIdle(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.host(leaf("other.test"), addr2, "other.test")
		r.noSettings = true
		a, b := r.goGet("a.test"), r.goGet("b.test")
		other := r.goGet("other.test")
		a.cancel(nil)
		time.Sleep(2 * handshake)
		wantWaiting(t, b, other)
		r.conn(0).settings(100)
		wantServed(t, b)
		if b.kind() != coalesce.ReasonJoined {
			t.Errorf("b: %s", b.kind())
		}
		wantWaiting(t, other)
		b.end()
		time.Sleep(2 * handshake)
		wantServed(t, other)
		r.wantDials(2)
	}, limits(pool.Limits{MaxConns: 1}))
}

// P5: a connection that the engine grants no stream of for a moment, since one
// that was canceled is not given back yet, is not closed for those who are in
// line for it.
func TestP5_ARefusalIsNoReasonToClose(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.maxStreams = 1
		r.shared("a.test")
		first := r.get("a.test")
		var line []*call
		for range 5 {
			line = append(line, r.goGet("a.test"))
		}
		r.conn(0).setRefuse(true)
		first.end()
		time.Sleep(10 * time.Millisecond)
		r.conn(0).setRefuse(false)
		time.Sleep(time.Second)
		for _, c := range line {
			wantServed(t, c)
			c.end()
			synctest.Wait()
		}
		r.wantDials(1)
	}, limits(pool.Limits{MaxConns: 1}))
}

// P5, C9: a request that has been in line for longer than its look-up is
// evidence is looked up again; the connection is not closed for it meanwhile.
func TestP5_InLineForLongerThanAddressTTL(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.maxStreams = 1
		r.shared("a.test", "b.test")
		a := r.get("a.test")
		b := r.goGet("b.test")
		time.Sleep(6 * time.Minute)
		wantWaiting(t, b)
		a.end()
		wantServed(t, b)
		if !b.lease.Shared() {
			t.Errorf("b: %s", b.kind())
		}
		r.wantLookups("b.test", 2)
		r.wantDials(1)
	}, one)
}
