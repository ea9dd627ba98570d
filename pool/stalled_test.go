package pool_test

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// stall opens a connection whose server then takes no streams.
func stall(r *rig) {
	r.get("a.test").end()
	r.conn(0).settings(0)
}

// P4: a server that takes no streams for less than a second is waited for.
func TestP4_AShortLimitOfZero(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		stall(r)
		calls := r.goGetAll("a.test", "b.test")
		time.Sleep(time.Second - 1)
		wantWaiting(t, calls...)
		r.conn(0).settings(2)
		wantServed(t, calls...)
		r.wantDials(1)
	})
}

// P4: after a second another connection is dialed, one for all.
func TestP4_ALongLimitOfZero(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		stall(r)
		calls := r.goGetAll("a.test", "b.test", "c.test", "a.test")
		time.Sleep(time.Second + handshake)
		wantServed(t, calls...)
		for _, c := range calls {
			if c.took != time.Second+handshake {
				t.Errorf("%s after %v", c.Host, c.took)
			}
		}
		r.wantDials(2)
	})
}

// P4: where another connection fares no better there is no third one, and
// whichever takes a stream first is used.
func TestP4_ALimitOfZeroOnEveryConnection(t *testing.T) {
	for i := range 2 {
		bubble(t, func(t *testing.T, r *rig) {
			r.shared("a.test", "b.test")
			stall(r)
			r.maxStreams = 0
			calls := r.goGetAll("a.test", "b.test")
			time.Sleep(time.Hour)
			wantWaiting(t, calls...)
			r.wantDials(2)
			r.conn(i).settings(2)
			wantServed(t, calls...)
			r.wantDials(2)
		})
	}
}

// P4, P5: where MaxConns leaves no room for another, the one without streams is
// given up for it, ever more rarely.
func TestP4_ALimitOfZeroAtMaxConns(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		stall(r)
		r.maxStreams = 0
		a := r.goGet("a.test")
		time.Sleep(time.Hour)
		wantWaiting(t, a)
		if n := len(r.dialed()); n < 50 || n > 70 { // 1, 2, 4 ... 32 s, then one a minute
			t.Errorf("%d dials in an hour", n)
		}
		r.set(func() { r.maxStreams = 1 })
		time.Sleep(2 * time.Minute)
		wantServed(t, a)
		a.end()
		// That is over now: the next time it is waited for as at first.
		n := len(r.dialed())
		r.conn(n - 1).settings(0)
		a = r.goGet("a.test")
		time.Sleep(time.Second + handshake)
		wantServed(t, a)
	}, one)
}

// P4, P5: however many wait, and whether or not they did so for room before.
func TestP4_ALimitOfZeroForACrowd(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.maxStreams = 1
		a := r.get("a.test")
		wait := r.goGetAll(slices.Repeat([]string{"a.test"}, 150)...)
		r.set(func() { r.maxStreams = 0 })
		r.conn(0).settings(0)
		a.end()
		time.Sleep(time.Second - 1)
		r.wantDials(1)
		time.Sleep(time.Minute)
		wantWaiting(t, wait...)
		r.wantDials(6) // after 1, 2, 4, 8 and 16 s
	}, one)
}

// P4, P5: two hosts whose servers take no streams do not have each other's connection
// closed as soon as it is dialed.
func TestP4_TwoHostsWithALimitOfZero(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.maxStreams = 0
		calls := r.goGetAll("a.test", "b.test")
		time.Sleep(time.Minute)
		wantWaiting(t, calls...)
		if n := len(r.dialed()); n > 61 {
			t.Errorf("%d dials in a minute", n)
		}
	}, one)
}

// P4, P5: a host whose server takes no streams keeps nobody else from room for more
// than a second, long as its own requests may have waited.
func TestP5_ALimitOfZeroKeepsNoRoom(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.maxStreams = 0
		a := r.goGet("a.test")
		time.Sleep(10 * time.Minute)
		r.set(func() { r.maxStreams = 1 })
		b := r.goGet("b.test")
		time.Sleep(time.Second + handshake)
		wantServed(t, b)
		wantWaiting(t, a)
		b.end()
		time.Sleep(handshake)
		wantServed(t, a)
	}, one)
}

// P5: such a connection is idle as soon as nobody is in line for it.
func TestP5_ALimitOfZeroForNobody(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		a := r.get("a.test")
		r.conn(0).settings(0)
		next := r.goGet("a.test")
		a.end()
		b := r.goGet("b.test")
		wantWaiting(t, next, b)
		next.cancel(nil)
		time.Sleep(handshake)
		wantServed(t, b)
	}, one)
}

// P5: nor is it kept for those who have a server elsewhere.
func TestP5_ALimitOfZeroElsewhereKeepsNoRoom(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.dns["b.test"] = []netip.Addr{addr2}
		a := r.get("a.test")
		r.conn(0).settings(0)
		b := r.goGet("b.test")
		a.end()
		time.Sleep(handshake)
		wantServed(t, b)
	}, one, policy(coalesce.Policy{Match: coalesce.MatchCertificate}))
}

// P4: a limit of 0 that comes in the very moment in which SETTINGS are given up on
// has its second.
func TestP4_ALimitOfZeroAtTheLastMoment(t *testing.T) {
	for range 200 {
		bubble(t, func(t *testing.T, r *rig) {
			r.shared("a.test")
			r.noSettings = true
			r.get("a.test").end()
			time.Sleep(time.Second)
			r.conn(0).settings(0)
			a := r.goGet("a.test")
			time.Sleep(time.Second - 1)
			wantWaiting(t, a)
			r.wantDials(1)
		})
	}
}

// P4: a connection that takes no streams holds no error up: the dial's is told.
func TestP4_ALimitOfZeroAndNoOtherConnection(t *testing.T) {
	for name, fail := range map[string]func(r *rig){
		"dial":    func(r *rig) { r.dialErr["a.test"] = errRefused },
		"look-up": func(r *rig) { r.lookupErr = errNoHost },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test")
				stall(r)
				time.Sleep(time.Minute)
				r.set(func() { fail(r) })
				a := r.goGet("a.test")
				time.Sleep(handshake)
				if !a.returned() || a.err == nil {
					t.Errorf("a: %s", a.kind())
				}
			})
		})
	}
}

// P4: meanwhile another host's open connection is looked for, though where the host
// is has to be looked up again for that.
func TestP4_ALimitOfZeroBesideAnotherConnection(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host(leaf("a.test", "c.test"), addr1, "a.test", "c.test")
		r.host(leaf("b.test", "c.test"), addr1, "b.test")
		r.maxStreams = 1
		r.get("a.test").end()
		first := r.get("c.test")
		b := r.get("b.test")
		r.dialErr["c.test"] = errRefused // after which the look-up is forgotten
		second := r.goGet("c.test")
		time.Sleep(handshake)
		synctest.Wait()
		second.cancel(nil)
		time.Sleep(time.Second) // the host's rest
		r.conn(0).settings(0)
		b.end()
		if c := r.get("c.test"); c.lease.ID() != 2 || c.took != 0 {
			t.Errorf("on connection %d after %v", c.lease.ID(), c.took)
		}
		first.end()
	})
}

// P4: a connection whose server takes no streams for now is not waited for by a
// host that has a server elsewhere.
func TestP4_ALimitOfZeroElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.dns["b.test"] = []netip.Addr{addr2}
		r.get("a.test").end()
		r.conn(0).settings(0)
		b := r.goGet("b.test")
		time.Sleep(handshake)
		wantServed(t, b)
		if b.kind() != coalesce.ReasonDialed {
			t.Errorf("b: %s", b.kind())
		}
	}, policy(coalesce.Policy{Match: coalesce.MatchCertificate}))
}
