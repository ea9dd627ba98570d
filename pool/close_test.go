package pool_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

func TestClose_FailsThoseWhoWait(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test", "d.test")
		r.maxStreams = 1
		r.get("a.test")
		full := r.goGet("a.test")
		r.set(func() { r.held = true })
		dialing := r.goGet("b.test")
		starved := r.goGet("c.test")
		r.set(func() { r.lookupTime = time.Hour })
		looking := r.goGet("d.test")
		wantWaiting(t, full, dialing, starved, looking)
		began := time.Now()
		r.Close()
		for _, c := range []*call{full, dialing, starved, looking} {
			if <-c.done; c.err != pool.ErrClosed {
				t.Errorf("%s: %v", c.Host, c.err)
			}
		}
		if time.Since(began) != 0 {
			t.Errorf("after %v", time.Since(began))
		}
		if _, err := r.Get(t.Context(), request("a.test")); err != pool.ErrClosed {
			t.Error(err)
		}
		if !r.conn(0).isClosed() || len(r.Conns()) != 0 {
			t.Error("not closed")
		}
	}, limits(pool.Limits{MaxConns: 2}))
}

// Close waits for what the pool has started, and so does a second one.
func TestClose_WaitsForGoroutines(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.closing = time.Second
		r.get("a.test")
		r.set(func() { r.onDial = func(context.Context, *fakeDial) { time.Sleep(2 * time.Second) } }) // deaf to its context
		b := r.goGet("b.test")
		began := time.Now()
		var second time.Duration
		done := make(chan struct{})
		go func() {
			defer close(done)
			time.Sleep(500 * time.Millisecond)
			r.Close()
			second = time.Since(began)
		}()
		r.Close()
		if got := time.Since(began); got != 2*time.Second {
			t.Errorf("Close took %v", got)
		}
		<-done
		if second != 2*time.Second {
			t.Errorf("the second Close returned after %v", second)
		}
		<-b.done
		if !errors.Is(b.err, pool.ErrClosed) || b.took != 0 {
			t.Errorf("%v after %v", b.err, b.took)
		}
	})
}

// A dial that succeeds while the pool is being closed leaves nothing open.
func TestClose_DuringDial(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test")
		r.held = true
		a := r.goGet("a.test")
		wantWaiting(t, a)
		r.nthDial(0).finish(nil)
		r.Close()
		<-a.done
		if len(r.open()) != 0 || len(r.Conns()) != 0 {
			t.Errorf("open: %d", len(r.open()))
		}
	})
}

func TestClose_EventsAfterwards(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		a, b := r.get("a.test"), r.get("b.test")
		r.get("b.test").end()
		c := r.conn(0)
		r.Close()
		c.obs.Settings(3)
		c.obs.GoAway(1, 0)
		c.obs.Unusable()
		c.obs.Origin([]string{"https://b.test"}, 0)
		c.die()
		c.die()
		b.lease.Answered()
		b.lease.Misdirected()
		_ = a.lease.Ended()
		a.end()
		b.end()
		r.SetLimits(pool.Limits{MaxConns: 1, MaxAge: time.Second, IdleTimeout: time.Second})
		r.CloseIdle()
		time.Sleep(time.Hour)
		r.check()
		if r.Sizes() != (pool.Sizes{}) {
			t.Errorf("%+v", r.Sizes())
		}
		if s := r.Stats(); s.Conns != 0 || s.Streams != 0 || s.Idle != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Close comes between a lease and its stream: the engine refuses, since the
// connection is closed, and the request must not begin anew.
func TestClose_WhileAStreamIsReserved(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.get("a.test").end()
		gate := make(chan struct{})
		var once atomic.Bool
		r.reserve = func(*fakeConn, bool) bool {
			if once.CompareAndSwap(false, true) {
				<-gate
			}
			return false
		}
		a := r.goGet("a.test")
		wantWaiting(t, a)
		r.Close()
		close(gate)
		if <-a.done; a.err != pool.ErrClosed {
			t.Errorf("%v", a.err)
		}
		r.wantDials(1)
		r.wantLookups("a.test", 1)
	})
}

// A connection that has ended by itself is not closed while it carries a
// request, whose answer may have arrived and not been read yet.
func TestClosedByItself(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test")
		a := r.get("a.test")
		r.conn(0).obs.GoAway(1, 0)
		r.conn(0).die()
		r.conn(0).obs.GoAway(1, 0)
		a.end()
		synctest.Wait()
		if got := r.conn(0).closes; got != 0 {
			t.Errorf("closed %d times", got)
		}
		if s := r.Stats(); s.Conns != 0 || s.Streams != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestCloseIdle(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		a := r.get("a.test")
		r.get("b.test").end()
		r.CloseIdle()
		wantOpen(t, r, "a.test")
		a.end()
		wantOpen(t, r, "a.test") // used again, as by net/http
		if s := r.Stats(); s.Evicted != 0 {
			t.Errorf("Evicted = %d", s.Evicted)
		}
	})
}

// A connection that ends without a word: those that it was dialed for learn
// why, rather than dial for ever; those of another host go their own way.
func TestP6_ConnectionThatEndsWithoutAWord(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.noSettings = true
		first, second, b := r.goGet("a.test"), r.goGet("a.test"), r.goGet("b.test")
		time.Sleep(handshake)
		wantServed(t, first)
		wantWaiting(t, second, b)
		c := r.conn(0)
		c.mu.Lock()
		c.closed, c.gone = true, true
		c.mu.Unlock()
		r.set(func() { r.noSettings = false })
		c.obs.Closed(errRefused)
		time.Sleep(handshake)
		<-second.done
		if !errors.Is(second.err, pool.ErrTurnedAway) || !errors.Is(second.err, errRefused) {
			t.Errorf("second: %v", second.err)
		}
		wantServed(t, b)
		if b.kind() != coalesce.ReasonDialed {
			t.Errorf("b: %s", b.kind())
		}
		if err := first.lease.TurnedAway(errNoHost); !errors.Is(err, pool.ErrTurnedAway) || !errors.Is(err, errRefused) {
			t.Errorf("first: %v", err)
		}
		if err := b.lease.TurnedAway(errNoHost); err != nil {
			t.Errorf("b, whose connection is well: %v", err)
		}
		r.wantDials(2)
	})
}
