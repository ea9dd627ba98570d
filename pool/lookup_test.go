package pool_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// P8: one look-up a host, for requests at the same time and for a connection
// that is dialed right after sharing was tried.
func TestP8_OneLookUpPerHost(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.lookupTime = 20 * time.Millisecond
		calls := r.goGetAll(slices.Repeat([]string{"a.test", "b.test"}, 20)...)
		time.Sleep(20*time.Millisecond + handshake)
		wantServed(t, calls...)
		r.wantLookups("a.test", 1)
		r.wantLookups("b.test", 1)
		calls[1].lease.Misdirected()
		q := own("b.test")
		q.Avoid = 1
		c := r.do(q)
		r.wantLookups("b.test", 1)
		if c.took != handshake || !slices.Equal(r.lastDial().Addrs, []netip.Addr{addr1}) {
			t.Errorf("dialed %v after %v", r.lastDial().Addrs, c.took)
		}
	})
}

// Answers are dialed for 10 s; those older than that are looked up again.
func TestP8_OldAnswersAreNotDialed(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test")
		r.get("a.test").end()
		r.conn(0).die()
		time.Sleep(10*time.Second - handshake)
		r.get("a.test").end()
		r.wantLookups("a.test", 1)
		r.conn(1).die()
		r.set(func() { r.dns["a.test"] = []netip.Addr{addr3} })
		r.get("a.test").end()
		r.wantLookups("a.test", 2)
		if got := r.lastDial().Addrs; !slices.Equal(got, []netip.Addr{addr3}) {
			t.Errorf("dialed %v", got)
		}
	})
}

func TestP8_FailureReachesAllWhoWait(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.lookupTime = time.Second
		r.apart("b.test")
		calls := r.goGetAll("nx.test", "nx.test", "nx.test", "b.test")
		calls[1].cancel(nil)
		for i, c := range calls {
			<-c.done
			if want := []error{errNoHost, context.Canceled, errNoHost, nil}[i]; !errors.Is(c.err, want) {
				t.Errorf("call %d: %v, want %v", i, c.err, want)
			}
		}
		r.wantLookups("nx.test", 1)
		calls[3].end()
		r.conn(0).die()
		synctest.Wait()
		if r.Sizes() != (pool.Sizes{}) {
			t.Errorf("%+v", r.Sizes())
		}
	})
}

// A look-up outlives the request that began it.
func TestP8_LookUpOutlivesItsCaller(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.lookupTime = time.Second
		r.apart("a.test")
		first, second := r.goGet("a.test"), r.goGet("a.test")
		first.cancel(nil)
		time.Sleep(time.Second + handshake)
		wantServed(t, second)
		r.wantLookups("a.test", 1)
	})
}

// C9: a placed host stays without DNS until AddressTTL is over, counted from
// the look-up; then it is looked up in the background.
func TestC9_AddressTTL(t *testing.T) {
	for _, tt := range []struct {
		name  string
		set   func(r *rig)
		stays bool
		again time.Duration // when the next look-up is due
	}{
		{name: "still there", stays: true, set: func(*rig) {}},
		{name: "one address of several", stays: true, set: func(r *rig) { r.dns["b.test"] = []netip.Addr{addr3, addr1} }},
		{name: "an address, mapped to IPv6", stays: true, set: func(r *rig) { r.dns["b.test"] = []netip.Addr{netip.AddrFrom16(addr1.As16())} }},
		{name: "moved", set: func(r *rig) { r.dns["b.test"] = []netip.Addr{addr3} }},
		{name: "no address", set: func(r *rig) { r.dns["b.test"] = []netip.Addr{} }},
		{name: "no such host", set: func(r *rig) {
			r.dns["b.test"] = []netip.Addr{addr3} // by the time of the next request
			r.lookupErr = &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}
		}},
		{name: "error", stays: true, set: func(r *rig) { r.lookupErr = errNoHost }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.lookupTime = time.Second
				r.shared("a.test", "b.test")
				r.get("a.test").end()
				r.get("b.test").end() // looked up just now
				r.set(func() { tt.set(r) })
				time.Sleep(time.Minute)
				r.get("b.test").end()
				r.wantLookups("b.test", 1)
				time.Sleep(time.Nanosecond)
				for range 3 {
					b := r.get("b.test")
					if !b.lease.Shared() || b.took != 0 {
						t.Fatalf("%s after %v while it is looked up", b.kind(), b.took)
					}
					b.end()
				}
				r.wantLookups("b.test", 2)
				time.Sleep(time.Second)
				synctest.Wait()
				if got := slices.Contains(r.Conns()[0].Hosts, "b.test"); got != tt.stays {
					t.Errorf("b is there: %t, want %t", got, tt.stays)
				}
				r.set(func() { r.lookupErr = nil })
				b := r.get("b.test")
				if b.lease.Shared() != tt.stays {
					t.Errorf("%s", b.kind())
				}
				b.end()
				if tt.stays {
					time.Sleep(time.Minute - 1)
					r.get("b.test").end()
					r.wantLookups("b.test", 2)
					time.Sleep(2 * time.Nanosecond)
					r.get("b.test").end()
					r.wantLookups("b.test", 3)
				}
			}, policy(coalesce.Policy{AddressTTL: time.Minute}))
		})
	}
}

// C9: addresses are compared in one form, whatever a resolver or a dial function
// makes of them.
func TestC9_AddressesInOneForm(t *testing.T) {
	mapped := netip.AddrFrom16(addr1.As16())
	global := netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		name        string
		found, peer netip.Addr
		want        bool
	}{
		{"mapped answer", mapped, addr1, true},
		{"mapped peer", addr1, mapped, true},
		{"zone of a global answer", global.WithZone("eth0"), global, true},
		{"zone of a global peer", global, global.WithZone("eth0"), true},
		{"zones of two links", netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("fe80::1%eth1"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.host(leaf("a.test", "b.test"), tt.found, "a.test", "b.test")
				r.shape = func(_ pool.Target, d *pool.Dialed) { d.RemoteAddr = netip.AddrPortFrom(tt.peer, 443) }
				r.get("a.test").end()
				d, err := r.Explain(t.Context(), request("b.test"))
				if err != nil || d.Shared != tt.want {
					t.Errorf("Explain: %+v, %v", d, err)
				}
				b := r.get("b.test")
				if b.lease.Shared() != tt.want {
					t.Errorf("b: %s", b.kind())
				}
				b.end()
				time.Sleep(2 * time.Minute)
				r.get("b.test").end()
				if b := r.get("b.test"); b.lease.Shared() != tt.want {
					t.Errorf("b, looked up again: %s", b.kind())
				}
			}, policy(coalesce.Policy{AddressTTL: time.Minute}))
		})
	}
}

// C9: what a look-up says that was begun for an earlier placement does not end a
// later one.
func TestC9_LateAnswerConcernsItsPlacementAlone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.get("a.test").end()
		r.get("b.test").end()
		time.Sleep(2 * time.Minute)
		r.set(func() { r.lookupTime = 10 * time.Second })
		r.get("b.test").end() // which has it looked up
		synctest.Wait()
		r.conn(0).lists()
		r.conn(0).lists("b.test")
		r.set(func() { r.lookupTime = 0 })
		if b := r.get("b.test"); !b.lease.Shared() {
			t.Fatalf("b: %s", b.kind())
		}
		r.set(func() { r.dns["b.test"] = []netip.Addr{addr3} })
		time.Sleep(11 * time.Second)
		if got := r.Conns()[0].Hosts; !slices.Contains(got, "b.test") {
			t.Errorf("hosts %q", got)
		}
	}, policy(coalesce.Policy{AddressTTL: time.Minute}))
}

// A negative AddressTTL: as long as the connection lives.
func TestC9_AddressTTLNegative(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.get("a.test").end()
		r.get("b.test").end()
		r.dns["b.test"] = nil
		time.Sleep(1000 * time.Hour)
		if b := r.get("b.test"); !b.lease.Shared() {
			t.Errorf("b: %s", b.kind())
		}
		r.wantLookups("b.test", 1)
	}, policy(coalesce.Policy{AddressTTL: -1}))
}

// Hosts that were placed without an address need none later.
func TestC9_NoLookUpWithoutAddressEvidence(t *testing.T) {
	for _, match := range []coalesce.Match{coalesce.MatchCertificate, coalesce.MatchOrigin} {
		bubble(t, func(t *testing.T, r *rig) {
			r.host(leaf("a.test", "b.test"), addr1, "a.test")
			r.get("a.test").end()
			r.conn(0).obs.Origin([]string{"https://b.test"}, 0)
			for range 3 {
				if b := r.get("b.test"); !b.lease.Shared() {
					t.Errorf("b: %s", b.kind())
				}
				time.Sleep(time.Hour)
			}
			r.wantLookups("b.test", 0)
		}, policy(coalesce.Policy{Match: match}))
	}
}

// An answer that another request obtains helps those who wait, too.
func TestP8_NewAnswerHelpsThoseInLine(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.dns["b.test"] = []netip.Addr{addr2}
		r.get("a.test")
		b := r.goGet("b.test") // no room for a connection to addr2
		wantWaiting(t, b)
		time.Sleep(time.Minute)
		r.set(func() { r.dns["b.test"] = []netip.Addr{addr1} })
		b2 := r.goGet("b.test")
		wantServed(t, b, b2)
	}, one)
}

// A pool that is used without a resolver gives host and port to Dial alone and
// shares nothing under MatchAddress (P8).
func TestP8_WithoutResolver(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.shape = func(_ pool.Target, d *pool.Dialed) { d.RemoteAddr = netip.AddrPortFrom(addr1, 443) }
		r.get("a.test").end()
		if b := r.get("b.test"); b.lease.Shared() || r.lastDial().Addrs != nil {
			t.Errorf("b: %s, dialed %v", b.kind(), r.lastDial().Addrs)
		}
		r.wantLookups("a.test", 0)
	}, func(c *pool.Config) { c.Resolve = nil })
}
