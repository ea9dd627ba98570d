package pool_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// one keeps a pool from dialing a second connection, so that requests wait.
var one = limits(pool.Limits{MaxConns: 1})

func inUse(calls []*call) (n int) {
	for _, c := range calls {
		if c.returned() {
			n++
		}
	}
	return n
}

// P4: one stream before SETTINGS, then as many as they say, however they change.
// The rig reports what exceeds them.
func TestP4_FollowsTheServersLimit(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.noSettings = true
		var calls []*call
		for range 10 {
			calls = append(calls, r.goGet("a.test"), r.goGet("b.test"))
		}
		want := func(n int) {
			t.Helper()
			if got := inUse(calls); got != n || r.conn(0).inUse() != n {
				t.Fatalf("%d served, %d streams in use; want %d", got, r.conn(0).inUse(), n)
			}
			if s := r.Stats(); s.Streams != n || s.Waiting != len(calls)-n {
				t.Fatalf("%+v with %d of %d served", s, n, len(calls))
			}
			r.check()
		}
		time.Sleep(handshake)
		want(1)
		if got := r.Conns()[0].MaxStreams; got != 1 {
			t.Errorf("MaxStreams = %d before SETTINGS", got)
		}
		r.conn(0).settings(3)
		want(3)
		r.conn(0).settings(1) // below what is in use
		calls[0].end()
		calls[1].end()
		calls = calls[2:]
		want(1)
		calls[0].end()
		calls = calls[1:]
		want(1)
		r.conn(0).settings(0)
		calls[0].end()
		calls = calls[1:]
		want(0)
		r.conn(0).settings(5)
		want(5)
		r.conn(0).settings(1 << 31)
		want(len(calls))
		r.wantDials(1)
	}, one)
}

func TestP4_MaxStreamsPerConn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		calls := r.goGetAll(slices.Repeat([]string{"a.test"}, 10)...)
		time.Sleep(handshake)
		if got := inUse(calls); got != 4 {
			t.Errorf("%d served, want 4", got)
		}
		r.conn(0).settings(2)
		calls[0].end()
		calls[1].end()
		if got := inUse(calls); got != 4 {
			t.Errorf("%d served below SETTINGS", got)
		}
	}, limits(pool.Limits{MaxConns: 1, MaxStreamsPerConn: 4}))
}

// P4: SETTINGS never come. After a second the engine's own assumption holds.
func TestP4_SettingsNeverArrive(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.noSettings = true
		calls := r.goGetAll(slices.Repeat([]string{"a.test"}, 150)...)
		time.Sleep(handshake + time.Second - 1)
		if got := inUse(calls); got != 1 {
			t.Errorf("%d served before the second is over", got)
		}
		time.Sleep(time.Nanosecond)
		if got := inUse(calls); got != 100 {
			t.Errorf("%d served after a second, want 100", got)
		}
		r.conn(0).settings(120) // later after all
		if got := inUse(calls); got != 120 {
			t.Errorf("%d served, want 120", got)
		}
	}, one)
}

// P4: SETTINGS that come in the very moment in which they are given up on are
// not overruled.
func TestP4_SettingsArriveAtTheLastMoment(t *testing.T) {
	for range 200 {
		bubble(t, func(t *testing.T, r *rig) {
			r.shared("a.test")
			r.noSettings = true
			r.get("a.test")
			time.Sleep(time.Second)
			r.conn(0).settings(3)
			synctest.Wait()
			if got := r.Conns()[0].MaxStreams; got != 3 {
				t.Fatalf("MaxStreams = %d, the server said 3", got)
			}
		})
	}
}

func TestP4_FirstComeFirstServed(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.maxStreams = 1
		first := r.get("a.test")
		line := r.goGetAll("c.test", "a.test", "b.test", "a.test", "c.test", "b.test")
		for i, c := range line {
			wantWaiting(t, line[i:]...)
			first.end()
			wantServed(t, c)
			first = c
		}
	}, one)
}

// P4: a newcomer does not overtake those in line.
func TestP4_NewcomerDoesNotOvertake(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.maxStreams = 1
		first := r.get("a.test")
		second := r.goGet("a.test")
		first.end() // hands its stream to the second, who may not have run yet
		third := r.goGet("a.test")
		wantServed(t, second)
		wantWaiting(t, third)
	}, one)
}

// P4: the context's end ends the wait, with its cause, and nobody loses a turn.
func TestP4_ContextEndsTheWait(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.maxStreams = 1
		first := r.get("a.test")
		line := r.goGetAll("a.test", "a.test", "a.test")
		cause := errors.New("enough")
		time.Sleep(time.Minute)
		line[0].cancel(cause)
		if <-line[0].done; line[0].err != cause || line[0].took != time.Minute {
			t.Errorf("%v after %v", line[0].err, line[0].took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := r.Get(ctx, request("a.test")); err != context.DeadlineExceeded || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		first.end()
		wantServed(t, line[1])
		wantWaiting(t, line[2])
	}, one)
}

// P4: a stream that is handed to a request which gives up in the same moment
// goes to the next in line.
func TestP4_NoLostWakeUp(t *testing.T) {
	outcomes := map[bool]int{}
	for range 200 {
		bubble(t, func(t *testing.T, r *rig) {
			r.shared("a.test", "b.test")
			r.maxStreams = 1
			first := r.get("a.test")
			line := r.goGetAll("a.test", "b.test")
			first.end()
			line[0].cancel(nil)
			<-line[0].done
			outcomes[line[0].err == nil]++
			if line[0].err == nil {
				line[0].end()
			}
			wantServed(t, line[1])
			if s := r.Stats(); s.Streams != 1 || s.Waiting != 0 {
				t.Fatalf("%+v", s)
			}
		}, one)
	}
	if len(outcomes) != 2 {
		t.Logf("only one outcome: %v", outcomes)
	}
}

// P4: the engine's word is the last. It is asked again after 1, 2, 4, ... ms,
// as long as a stream is under way.
func TestP4_EngineRefuses(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		first := r.get("a.test")
		var asked []time.Duration
		began := time.Now()
		r.reserve = func(c *fakeConn, granted bool) bool {
			asked = append(asked, time.Since(began))
			return granted
		}
		r.conn(0).setRefuse(true)
		second := r.goGet("a.test")
		time.Sleep(2 * time.Second)
		wantWaiting(t, second)
		ms := func(ns ...int) (ds []time.Duration) {
			for _, n := range ns {
				ds = append(ds, time.Duration(n)*time.Millisecond)
			}
			return ds
		}
		want := ms(0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 767, 1023, 1279, 1535, 1791)
		if !slices.Equal(asked, want) {
			t.Errorf("asked after %v, want %v", asked, want)
		}
		r.conn(0).setRefuse(false)
		time.Sleep(256 * time.Millisecond)
		wantServed(t, second)
		second.end()
		first.end()
		if s := r.Stats(); s.Reused != 1 || s.Streams != 0 || r.Conns()[0].Requests != 2 {
			t.Errorf("%+v, %d requests", s, r.Conns()[0].Requests)
		}
		// The count of refusals starts over.
		asked, began = nil, time.Now()
		r.get("a.test")
		r.conn(0).setRefuse(true)
		third := r.goGet("a.test")
		time.Sleep(4 * time.Millisecond)
		wantWaiting(t, third)
		if want := ms(0, 0, 1, 3); !slices.Equal(asked, want) {
			t.Errorf("asked after %v, want %v", asked, want)
		}
		r.conn(0).setRefuse(false)
	}, one)
}

// P4: many requests that are refused at the same time are one refusal, not
// the sign of a connection that is finished.
func TestP4_EngineRefusesManyAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.get("a.test").end()
		r.conn(0).setRefuse(true) // as if 50 canceled requests waited for a PING's answer
		calls := r.goGetAll(slices.Repeat([]string{"a.test"}, 50)...)
		time.Sleep(10 * time.Millisecond)
		wantWaiting(t, calls...)
		if r.conn(0).isClosed() {
			t.Fatal("closed")
		}
		r.conn(0).setRefuse(false)
		time.Sleep(10 * time.Millisecond)
		wantServed(t, calls...)
		r.wantDials(1)
	}, one)
}

// P4: a connection that refuses while nothing is under way on it is finished.
func TestP4_EngineRefusesWhileIdle(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.get("a.test").end()
		r.conn(0).setRefuse(true)
		c := r.goGet("a.test")
		time.Sleep(255*time.Millisecond - 1)
		wantWaiting(t, c)
		if r.conn(0).isClosed() {
			t.Error("closed too soon")
		}
		time.Sleep(1 + handshake)
		wantServed(t, c)
		if !r.conn(0).isClosed() || c.lease.ID() != 2 {
			t.Errorf("closed %t, served by %d", r.conn(0).isClosed(), c.lease.ID())
		}
	}, limits(pool.Limits{MaxConnsPerHost: 1}))
}

// P4: where limits allow, another is dialed while one refuses.
func TestP4_EngineRefusesAndAnotherIsDialed(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.get("a.test")
		r.conn(0).setRefuse(true)
		c := r.goGet("a.test")
		<-c.done
		if c.err != nil || c.lease.ID() != 2 || c.took != (1+2+4+8+16)*time.Millisecond+handshake {
			t.Errorf("%v, on %d after %v", c.err, c.lease.ID(), c.took)
		}
	})
}

// P4: "full" dials another where the limits allow, for shared hosts too; the
// host then has one of its own.
func TestP4_FullDialsAnother(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.maxStreams = 2
		a1, b1 := r.get("a.test"), r.get("b.test")
		b2 := r.get("b.test")
		if b1.lease.ID() != 1 || b2.kind() != coalesce.ReasonDialed || b2.took != handshake {
			t.Errorf("b1 on %d; b2 %s after %v", b1.lease.ID(), b2.kind(), b2.took)
		}
		a2 := r.get("a.test")
		if a2.lease.ID() != 2 || a2.kind() != coalesce.ReasonShared {
			t.Errorf("a2 %s on %d", a2.kind(), a2.lease.ID())
		}
		endAll([]*call{a1, b1, b2, a2})
	})
}

// P6: a connection that drains passes those in line on.
func TestP6_GoAwayPassesTheLineOn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.maxStreams = 1
		first := r.get("a.test")
		a, b := r.goGet("a.test"), r.goGet("b.test")
		wantWaiting(t, a, b)
		r.SetLimits(pool.Limits{MaxConns: 2})
		r.set(func() { r.maxStreams = 10 })
		r.conn(0).obs.GoAway(1, 0)
		time.Sleep(handshake)
		wantServed(t, a, b)
		if a.lease.ID() != 2 || b.lease.ID() != 2 || r.conn(0).isClosed() {
			t.Errorf("a on %d, b on %d, closed %t", a.lease.ID(), b.lease.ID(), r.conn(0).isClosed())
		}
		if info := r.Conns()[0]; !info.Draining || info.Streams != 1 {
			t.Errorf("%+v", info)
		}
		first.end()
		synctest.Wait()
		if !r.conn(0).isClosed() {
			t.Error("the drained connection is not closed with its last stream")
		}
	}, one)
}
