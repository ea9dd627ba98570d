package pool_test

import (
	"net/netip"
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
