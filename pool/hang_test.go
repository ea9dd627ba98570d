package pool_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// hasEnded reports whether the i-th dial has returned.
func (r *rig) hasEnded(i int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dials[i].ended
}

// A handshake that hangs is not waited for by those who come after a request
// has given it up.
func TestP3_AHungDialDoesNotBlockItsHost(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test")
		r.held = true
		first := r.goGet("a.test")
		time.Sleep(500 * time.Millisecond)
		early := r.goGet("a.test")
		early.cancel(nil) // after too short a time to tell
		second := r.goGet("a.test")
		r.wantDials(1)
		time.Sleep(500 * time.Millisecond)
		first.cancel(nil)
		synctest.Wait()
		r.set(func() { r.held = false })
		third := r.goGet("a.test")
		time.Sleep(handshake)
		wantServed(t, third)
		r.wantDials(2)
		wantServed(t, second) // by the connection that the third has got
		synctest.Wait()
		if !r.hasEnded(0) {
			t.Error("the hung dial goes on with nobody waiting for it")
		}
	})
}

func TestP5_ADialThatNobodyWaitsForMakesRoom(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.held = true
		a := r.goGet("a.test")
		time.Sleep(100 * time.Millisecond)
		a.cancel(nil)
		synctest.Wait()
		if r.hasEnded(0) {
			t.Fatal("a dial that may be of use yet was ended")
		}
		r.set(func() { r.held = false })
		b := r.goGet("b.test")
		time.Sleep(handshake)
		wantServed(t, b)
	}, limits(pool.Limits{MaxConns: 1}))
}

func TestP3_ADialThatNobodyWaitsForEnds(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test")
		r.held = true
		a := r.goGet("a.test")
		a.cancel(nil)
		time.Sleep(30*time.Second - time.Nanosecond*2)
		if r.hasEnded(0) {
			t.Error("ended early")
		}
		time.Sleep(2 * time.Nanosecond * 2)
		synctest.Wait()
		if !r.hasEnded(0) {
			t.Error("it goes on")
		}
	})
}

func TestP8_AHungLookUpDoesNotBlockItsHost(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test")
		r.lookupTime = 1000 * time.Hour
		first, second := r.goGet("a.test"), r.goGet("a.test")
		time.Sleep(time.Second)
		first.cancel(nil)
		synctest.Wait()
		r.set(func() { r.lookupTime = 0 })
		third := r.goGet("a.test")
		time.Sleep(handshake)
		wantServed(t, third, second)
		r.wantLookups("a.test", 2)
		r.wantDials(1)
	})
}

// AddressTTL < 0 keeps placements, but old look-ups make no new ones.
func TestC9_NegativeAddressTTLIsForPlacementsOnly(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		a := r.get("a.test")
		r.get("b.test").end()
		time.Sleep(1000 * time.Hour)
		if b := r.get("b.test"); b.lease.ID() != a.lease.ID() {
			t.Error("the placement was not kept")
		} else {
			b.end()
		}
		r.wantLookups("b.test", 1)
		a.end()
		r.conn(0).die()
		r.set(func() { r.dns["b.test"] = []netip.Addr{addr2} })
		a = r.get("a.test")
		if b := r.get("b.test"); b.lease.ID() == a.lease.ID() {
			t.Error("shared on a look-up of long ago")
		}
	}, policy(coalesce.Policy{AddressTTL: -1}))
}

// A host that has gone from DNS leaves, one whose look-up fails stays.
func TestC9_AHostThatIsNoMoreLeaves(t *testing.T) {
	for _, gone := range []bool{true, false} {
		bubble(t, func(t *testing.T, r *rig) {
			r.shared("a.test", "b.test")
			r.get("a.test")
			r.get("b.test").end()
			r.set(func() {
				r.lookupErr = &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: gone, IsTemporary: !gone}}
			})
			time.Sleep(5*time.Minute + time.Second)
			r.get("b.test").end() // has it looked up
			synctest.Wait()
			if stays := slices.Contains(r.Conns()[0].Hosts, "b.test"); stays == gone {
				t.Errorf("gone %v, stays %v", gone, stays)
			}
		})
	}
}

// What is remembered of misdirected hosts on one connection is bounded.
func TestM2_ExcludedHostsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		hosts := append(names("h%d.test", 1100), "a.test")
		r.shared(hosts...)
		r.get("a.test")
		for _, h := range hosts[:1024] {
			c := r.get(h)
			c.lease.Misdirected()
			c.end()
		}
		if c := r.get(hosts[1050]); c.lease.Shared() {
			t.Error("a further host was let on")
		}
		if n := len(r.Conns()[0].Excluded); n != 1024 {
			t.Errorf("%d excluded", n)
		}
	})
}
