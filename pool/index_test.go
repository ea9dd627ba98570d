package pool_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// P1: the host's own connection, then the one that it is placed on, then the
// oldest that qualifies.
func TestP1_OwnBeforePlacedBeforeOldest(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.maxStreams = 1
		a := r.get("a.test") // connection 1, full
		b := r.get("b.test") // connection 2
		if got := b.kind(); got != coalesce.ReasonDialed {
			t.Fatalf("b: %s", got)
		}
		b.end()
		c := r.get("c.test") // 1 is full, so placed on 2
		if c.lease.ID() != 2 || c.kind() != coalesce.ReasonShared {
			t.Fatalf("c: %s on %d, want shared on 2", c.kind(), c.lease.ID())
		}
		c.end()
		a.end()

		// Connection 1 is free again and older, but c stays where it is.
		for range 3 {
			c = r.get("c.test")
			if c.lease.ID() != 2 || c.kind() != coalesce.ReasonShared {
				t.Fatalf("c: %s on %d, want shared on 2", c.kind(), c.lease.ID())
			}
			c.end()
		}
		// b has a connection of its own, although 1 is older.
		if b = r.get("b.test"); b.lease.ID() != 2 || b.kind() != coalesce.ReasonOwn {
			t.Fatalf("b: %s on %d, want own on 2", b.kind(), b.lease.ID())
		}
		b.end()
		// A host that was never placed goes to the oldest.
		r.shared("a.test", "b.test", "c.test")
		r.host(leaf("a.test"), addr1, "d.test") // certs[d] is not asked for: shares by the open ones
		if got := r.Covering("c.test", addr1); !slices.Equal(got, []uint64{1, 2}) {
			t.Fatalf("covering c: %v", got)
		}
		r.wantDials(2)
	})
}

// P1: the oldest connection with a free stream, and the same one each time.
func TestP1_SameQuestionSameAnswer(t *testing.T) {
	const n = 20
	hosts := names("h%d.test", n)
	bubble(t, func(t *testing.T, r *rig) {
		r.shared(hosts...)
		for i := range 5 {
			q := own(hosts[i])
			r.do(q).end()
		}
		r.wantDials(5)
		for range 3 {
			for _, h := range hosts[5:] {
				c := r.get(h)
				if c.lease.ID() != 1 || c.kind() != coalesce.ReasonShared {
					t.Fatalf("%s: %s on %d, want shared on 1", h, c.kind(), c.lease.ID())
				}
				if d, err := r.Explain(t.Context(), request(h)); err != nil || d.Conn != 1 || !d.Shared {
					t.Fatalf("Explain(%s) = %+v, %v", h, d, err)
				}
				c.end()
			}
		}
		// Own connections keep their hosts.
		for i := range 5 {
			c := r.get(hosts[i])
			if c.lease.ID() != uint64(i+1) {
				t.Fatalf("%s on %d", hosts[i], c.lease.ID())
			}
			c.end()
		}
		r.wantDials(5)
	})
}

func TestP1_IndexedByExactNameWildcardAndAddress(t *testing.T) {
	for _, tt := range []struct {
		host string
		want bool
	}{
		{"exact.example.test", true},
		{"www.wild.example.test", true},
		{"wild.example.test", false},
		{"a.www.wild.example.test", false},
		{"192.0.2.1", true},
		{"2001:db8::1", true},
		{"192.0.2.2", false},
		{"other.example.test", false},
	} {
		t.Run(tt.host, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				cert := leaf("first.example.test", "exact.example.test", "*.wild.example.test", "192.0.2.1", "2001:db8::1")
				r.host(cert, addr1, "first.example.test", tt.host)
				r.get("first.example.test").end()
				c := r.get(tt.host)
				if c.lease.Shared() != tt.want {
					t.Errorf("shared = %t, want %t", c.lease.Shared(), tt.want)
				}
				c.end()
				r.check()
			})
		})
	}
}

func TestP1_IndexEmptyAfterRemoval(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		cert := leaf("a.test", "b.test", "*.w.test", "192.0.2.1")
		r.host(cert, addr1, "a.test", "b.test", "x.w.test")
		r.host(leaf("c.test", "b.test"), addr2, "c.test")
		for _, h := range []string{"a.test", "b.test", "x.w.test", "c.test"} {
			r.get(h).end()
		}
		r.do(own("b.test")).end() // a second connection with the first certificate
		r.conn(0).obs.Origin([]string{"https://a.test", "https://b.test", "https://z.test"}, 0)
		if got := r.Sizes(); got.Certs != 2 || got.Names != 3 || got.Wild != 1 || got.Addrs != 1 || got.Listed != 2 {
			t.Fatalf("sizes %+v", got)
		}
		r.check()
		for i, end := range []func(*fakeConn){
			func(c *fakeConn) { c.die() },
			func(c *fakeConn) { c.obs.GoAway(1, 0) },
			func(c *fakeConn) { c.obs.Unusable() },
		} {
			end(r.conn(i))
			r.check()
		}
		synctest.Wait()
		if got := r.Sizes(); got != (pool.Sizes{}) {
			t.Fatalf("sizes %+v, want all zero", got)
		}
	})
}

// ORIGIN frames on a connection whose certificate is not known enter nothing
// that its end would not remove.
func TestP1_IndexEmptyAfterUnknownCertificate(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.shape = func(_ pool.Target, d *pool.Dialed) { d.TLS = nil }
		r.get("a.test").end()
		r.conn(0).obs.Origin([]string{"https://b.test"}, 0)
		if r.get("b.test").lease.Shared() {
			t.Error("C3: shared without a certificate")
		}
		for _, c := range r.conns {
			c.die()
		}
		synctest.Wait()
		if got := r.Sizes(); got != (pool.Sizes{}) {
			t.Fatalf("sizes %+v, want all zero", got)
		}
	})
}

// P1: a hundred connections with one certificate keep its names once.
func TestP1_OneCertificateKeptOnce(t *testing.T) {
	hosts := names("h%d.test", 100)
	bubble(t, func(t *testing.T, r *rig) {
		r.shared(hosts...)
		for _, h := range hosts {
			r.do(own(h)).end()
		}
		r.wantDials(100)
		if got := r.Sizes(); got.Certs != 1 || got.Names != 100 {
			t.Fatalf("sizes %+v, want one certificate and 100 names", got)
		}
		for i, c := range r.conns {
			c.die()
			if got, want := r.Sizes().Names, 100; i < 99 && got != want {
				t.Fatalf("%d names after %d connections have ended, want %d", got, i+1, want)
			}
		}
		if got := r.Sizes(); got.Names != 0 {
			t.Fatalf("sizes %+v after the end", got)
		}
	})
}

// warm returns a pool with an own connection of a.test that b.test shares.
func warm(t testing.TB) *rig {
	r := newRig(t)
	t.Cleanup(func() { r.Close() })
	r.handshake = 0
	r.shared("a.test", "b.test")
	for _, h := range []string{"a.test", "b.test"} {
		l, err := r.Get(context.Background(), request(h))
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
	}
	r.reserve = func(*fakeConn, bool) bool { return true }
	r.conn(0).settings(1 << 30)
	return r
}

func TestP1_WarmGetAllocatesNothing(t *testing.T) {
	for host, kind := range map[string]coalesce.Reason{"a.test": coalesce.ReasonOwn, "b.test": coalesce.ReasonShared} {
		allocates := func(t *testing.T, r *rig) {
			ctx := context.Background()
			n := testing.AllocsPerRun(1000, func() {
				l, err := r.Get(ctx, request(host))
				if err != nil || l.Decision().Reason != kind {
					t.Fatal(l.Decision().Reason, err)
				}
				l.Answered()
				l.Release()
			})
			if n != 0 {
				t.Errorf("%v allocations", n)
			}
		}
		t.Run(string(kind), func(t *testing.T) { allocates(t, warm(t)) })
		t.Run(string(kind)+"/ORIGIN", func(t *testing.T) { // O6 is looked at whenever it becomes idle
			r := warm(t)
			r.conn(0).obs.Origin([]string{"https://b.test"}, 0)
			allocates(t, r)
		})
	}
}

// P1: finding a connection among many certificates and names allocates nothing.
func TestP1_LookupAllocatesNothing(t *testing.T) {
	f := many(t, 50, 20).NewFinder("h7.c33.test", addr1)
	n := testing.AllocsPerRun(1000, func() {
		if !f.Find() {
			t.Fatal("not found")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// many returns a pool with one connection for each of certs certificates,
// which name so many hosts each.
func many(t testing.TB, certs, hosts int) *rig {
	r := newRig(t)
	t.Cleanup(func() { r.Close() })
	r.handshake = 0
	for i := range certs {
		sans := names(fmt.Sprintf("h%%d.c%d.test", i), hosts)
		r.host(leaf(sans...), addr1, sans...)
		l, err := r.Get(context.Background(), own(sans[0]))
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
	}
	return r
}

// The pool's answers do not depend on which of a host's addresses is first.
func TestP1_EveryAddressIsTried(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.get("a.test").end()
		r.set(func() { r.dns["b.test"] = []netip.Addr{addr3, addr2, addr1} })
		if c := r.get("b.test"); !c.lease.Shared() {
			t.Error("not shared by the third address")
		}
	})
}

func TestP1_LeaseTellsHowLongTheConnectionWasIdle(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		c := r.get("a.test")
		if reused, idle := c.lease.Reused(); reused || idle != 0 {
			t.Errorf("fresh: %t, %v", reused, idle)
		}
		c.end()
		time.Sleep(7 * time.Second)
		c = r.get("a.test")
		if reused, idle := c.lease.Reused(); !reused || idle != 7*time.Second {
			t.Errorf("used again: %t, %v", reused, idle)
		}
		if info := r.Conns()[0]; !info.LastUsed.Equal(time.Now()) {
			t.Errorf("LastUsed is %v ago, with a request just begun", time.Since(info.LastUsed))
		}
		time.Sleep(time.Second)
		c.end()
		if info := r.Conns()[0]; !info.LastUsed.Equal(time.Now()) || info.Requests != 2 {
			t.Errorf("LastUsed is %v ago, %d requests", time.Since(info.LastUsed), info.Requests)
		}
	})
}

// The oldest connection is chosen whatever leads to it: here the younger one
// has the name itself, which is found before the wildcard of the older.
func TestP1_OldestAcrossCertificates(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host(leaf("*.w.test"), addr1, "a.w.test")
		r.host(leaf("x.test", "c.w.test"), addr1, "x.test")
		r.host(leaf("c.w.test"), addr1, "c.w.test")
		a, x := r.get("a.w.test"), r.get("x.test")
		if a.lease.ID() == x.lease.ID() {
			t.Fatal("x.test is on the wildcard's connection")
		}
		if c := r.get("c.w.test"); c.lease.ID() != a.lease.ID() {
			t.Errorf("connection %d was chosen, the oldest is %d", c.lease.ID(), a.lease.ID())
		}
	})
}
