package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

func TestP3_SameHostDialsAreShared(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		calls := r.goGetAll(slices.Repeat([]string{"a.test"}, 50)...)
		for _, c := range calls {
			<-c.done
			if c.err != nil || c.took != handshake || c.kind() != coalesce.ReasonDialed {
				t.Errorf("%s after %v, %v", c.kind(), c.took, c.err)
			}
		}
		r.wantDials(1)
		r.wantLookups("a.test", 1)
	})
}

// P3: the dial outlives the caller that began it while others wait, and also
// when nobody does.
func TestP3_DialOutlivesItsCaller(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		cause := errors.New("enough")
		first, second, other := r.goGet("a.test"), r.goGet("a.test"), r.goGet("b.test")
		wantWaiting(t, first, second, other)
		time.Sleep(10 * time.Millisecond)
		first.cancel(cause)
		<-first.done
		if first.err != cause || first.took != 10*time.Millisecond {
			t.Errorf("%v after %v", first.err, first.took)
		}
		time.Sleep(40 * time.Millisecond)
		wantServed(t, second, other)
		r.wantDials(1)
	})
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		first := r.goGet("a.test")
		wantWaiting(t, first)
		first.cancel(nil)
		<-first.done
		if !errors.Is(first.err, context.Canceled) {
			t.Error(first.err)
		}
		time.Sleep(handshake)
		synctest.Wait()
		if c := r.get("a.test"); c.kind() != coalesce.ReasonOwn || c.took != 0 {
			t.Errorf("%s after %v, want the connection that the first began", c.kind(), c.took)
		}
		r.wantDials(1)
	})
}

func TestP3_CancelChannelEndsTheWait(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		cancel := make(chan struct{})
		q := request("a.test")
		q.Cancel = cancel
		c := r.goDo(q)
		wantWaiting(t, c)
		close(cancel)
		if <-c.done; c.err != pool.ErrCanceled {
			t.Error(c.err)
		}
	})
}

func TestP3_DialErrorReachesAllOfTheHost(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.dialErr["a.test"] = errRefused
		calls := r.goGetAll(slices.Repeat([]string{"a.test"}, 20)...)
		for _, c := range calls {
			<-c.done
			if !errors.Is(c.err, errRefused) || c.took != handshake {
				t.Errorf("%v after %v", c.err, c.took)
			}
		}
		r.wantDials(1)
		if s := r.Stats(); s.DialErrors != 1 || s.Waiting != 0 || r.Sizes() != (pool.Sizes{}) {
			t.Errorf("%+v, %+v", s, r.Sizes())
		}
		// The host is looked up again: perhaps it has moved.
		r.set(func() { delete(r.dialErr, "a.test") })
		r.get("a.test")
		r.wantLookups("a.test", 2)
	})
}

// P3: a dial's context carries the values of the request that began it.
func TestP3_DialContextHasTheCallersValues(t *testing.T) {
	type key struct{}
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		var got any
		r.onDial = func(ctx context.Context, _ *fakeDial) { got = ctx.Value(key{}) }
		if _, err := r.Get(context.WithValue(t.Context(), key{}, "v"), request("a.test")); err != nil || got != "v" {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestP3_CloseIdleEndsDialsNobodyWaitsFor(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.host(leaf("z.test"), addr2, "z.test")
		r.held = true
		a, z := r.goGet("a.test"), r.goGet("z.test")
		wantWaiting(t, a, z)
		a.cancel(nil)
		<-a.done
		r.CloseIdle()
		synctest.Wait()
		if !r.nthDial(0).ended || r.nthDial(1).ended {
			t.Errorf("ended: %t, %t; want the dial of a alone", r.nthDial(0).ended, r.nthDial(1).ended)
		}
		r.check()
		r.nthDial(1).finish(nil)
		wantServed(t, z)
	})
}

// P3: a request that comes after CloseIdle does not inherit the end of a dial
// that was told to end but has not yet.
func TestP3_RequestAfterCloseIdleDialsAnew(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.onDial = func(ctx context.Context, _ *fakeDial) { time.Sleep(20 * time.Millisecond) } // deaf
		a := r.goGet("a.test")
		wantWaiting(t, a)
		a.cancel(nil)
		<-a.done
		r.CloseIdle()
		again, b := r.goGet("a.test"), r.goGet("b.test")
		<-again.done
		<-b.done
		wantServed(t, again, b)
		r.wantDials(2)
		if again.took != 70*time.Millisecond || b.took != 70*time.Millisecond {
			t.Errorf("served after %v and %v", again.took, b.took)
		}
	})
}

// A connection that its server ends before the dial returns.
func TestP6_GoneBeforeReady(t *testing.T) {
	for name, test := range map[string]struct {
		event func(pool.Observer)
		want  error
	}{
		"GOAWAY":              {func(o pool.Observer) { o.GoAway(0, 0) }, pool.ErrUnusable},
		"GOAWAY and closed":   {func(o pool.Observer) { o.GoAway(0, 0); o.Closed(nil) }, pool.ErrUnusable},
		"SETTINGS and closed": {func(o pool.Observer) { o.Settings(1); o.Closed(nil) }, pool.ErrUnusable},
		"unusable":            {func(o pool.Observer) { o.Unusable() }, pool.ErrUnusable},
		"closed":              {func(o pool.Observer) { o.Closed(nil) }, pool.ErrTurnedAway},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test", "b.test")
				r.noSettings = true
				r.onDial = func(_ context.Context, d *fakeDial) {
					if d.Host == "a.test" {
						test.event(d.obs)
					}
				}
				a, b := r.goGet("a.test"), r.goGet("b.test")
				<-a.done
				<-b.done
				if !errors.Is(a.err, test.want) {
					t.Errorf("a: %v, want %v", a.err, test.want)
				}
				if b.err != nil || b.kind() != coalesce.ReasonDialed {
					t.Errorf("b: %s, %v", b.kind(), b.err)
				}
				if !r.conn(0).isClosed() {
					t.Error("not closed")
				}
			})
		})
	}
}

// A dial that fails while the host's connections are merely full is not the
// end of the request: they will do, and after a second another is dialed.
func TestP4_DialFailsWhileFull(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.maxStreams = 1
		first := r.get("a.test")
		r.set(func() { r.dialErr["a.test"] = errRefused })
		second, third := r.goGet("a.test"), r.goGet("a.test")
		time.Sleep(handshake)
		wantWaiting(t, second, third)
		r.set(func() { delete(r.dialErr, "a.test") })
		dials := len(r.dialed())
		first.end()
		wantServed(t, second) // by the first's stream
		time.Sleep(time.Second - 1)
		if got := len(r.dialed()); got != dials {
			t.Errorf("%d dials within the second, %d before", got, dials)
		}
		time.Sleep(1 + handshake)
		wantServed(t, third) // by a new connection, though nothing else has happened
		if third.kind() != coalesce.ReasonDialed {
			t.Errorf("third: %s", third.kind())
		}
	})
}

// The same for a look-up that fails.
func TestP4_LookUpFailsWhileFull(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.maxStreams = 1
		r.get("a.test")
		time.Sleep(time.Minute) // the answer is too old to be dialed
		r.set(func() { r.lookupErr = errNoHost })
		second := r.goGet("a.test")
		wantWaiting(t, second)
		r.set(func() { r.lookupErr = nil })
		time.Sleep(time.Second + handshake)
		wantServed(t, second)
		if d := r.lastDial(); !slices.Equal(d.Addrs, []netip.Addr{addr1}) {
			t.Errorf("dialed at %v", d.Addrs)
		}
	})
}

// A request in line for a connection that has turned its host away has only
// its dial to hope for, whose error it gets.
func TestP4_DialErrorIsNotKeptFromWhomNothingElseServes(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.maxStreams = 1
		r.get("a.test").end()
		first := r.get("b.test")
		r.set(func() { r.held = true })
		second := r.goGet("b.test") // in line, and dialing
		wantWaiting(t, second)
		r.wantDials(2)
		first.lease.Misdirected()
		r.lastDial().finish(errRefused)
		synctest.Wait()
		if !second.returned() || !errors.Is(second.err, errRefused) {
			t.Errorf("returned %t, %v", second.returned(), second.err)
		}
	})
}

// abandoned is an outcome that must not be lost.
type abandoned struct{ times int }

func (*abandoned) Error() string { return "http/1.1" }
func (*abandoned) Unwrap() error { return pool.ErrNotHTTP2 }
func (a *abandoned) Abandon()    { a.times++ }

func TestP9_NotHTTP2ReachesTheHostsRequests(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		outcome := &abandoned{}
		r.dialErr["a.test"] = outcome
		a1, a2, b := r.goGet("a.test"), r.goGet("a.test"), r.goGet("b.test")
		for _, c := range []*call{a1, a2, b} {
			<-c.done
		}
		if !errors.Is(a1.err, pool.ErrNotHTTP2) || !errors.Is(a2.err, pool.ErrNotHTTP2) || b.err != nil {
			t.Errorf("%v, %v, %v", a1.err, a2.err, b.err)
		}
		if s := r.Stats(); s.DialErrors != 0 || outcome.times != 0 {
			t.Errorf("DialErrors %d, abandoned %d times", s.DialErrors, outcome.times)
		}
	})
}

// Abandon is called when nobody is left, and only then.
func TestP9_AbandonWhenNobodyReceives(t *testing.T) {
	t.Run("gave up before", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.shared("a.test")
			outcome := &abandoned{}
			r.dialErr["a.test"] = outcome
			a := r.goGet("a.test")
			wantWaiting(t, a)
			a.cancel(nil)
			time.Sleep(handshake)
			synctest.Wait()
			if outcome.times != 1 {
				t.Errorf("abandoned %d times", outcome.times)
			}
		})
	})
	t.Run("close", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.shared("a.test")
			outcome := &abandoned{}
			r.held = true
			a := r.goGet("a.test")
			wantWaiting(t, a)
			r.nthDial(0).finish(outcome)
			r.Close()
			synctest.Wait()
			// The outcome of the dial, its end by Close and a's are a draw.
			if got := errors.Is(a.err, pool.ErrNotHTTP2); got == (outcome.times == 1) && !errors.Is(a.err, pool.ErrClosed) {
				t.Errorf("a got %v, abandoned %d times", a.err, outcome.times)
			}
		})
	})
	t.Run("gave up at the same time", func(t *testing.T) {
		seen := map[string]int{}
		for range 200 {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test")
				outcome := &abandoned{}
				r.held = true
				calls := r.goGetAll("a.test", "a.test", "a.test")
				r.nthDial(0).finish(outcome)
				calls[0].cancel(nil)
				calls[1].cancel(nil)
				if len(seen)%2 == 0 {
					calls[2].cancel(nil)
				}
				got := 0
				for _, c := range calls {
					if <-c.done; errors.Is(c.err, pool.ErrNotHTTP2) {
						got++
					}
				}
				synctest.Wait()
				if want := map[bool]int{true: 1, false: 0}[got == 0]; outcome.times != want {
					t.Fatalf("%d requests got the outcome, abandoned %d times", got, outcome.times)
				}
				seen[fmt.Sprint(got)]++
			})
		}
		t.Log("requests that got it:", seen)
	})
}
