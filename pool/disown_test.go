package pool_test

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// M3: a host's own connection that has answered 421 serves it no more, once
// another one has answered. Those in line there go elsewhere at once, though it
// is expected to take streams again soon; its guests stay.
func TestM3_DisownedConnection(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.maxStreams = 1
		a := r.get("a.test")
		r.get("a.test") // on 2, and stays
		a.end()
		r.get("b.test").end() // placed on 1
		r.conn(0).settings(0)
		c := r.goGet("a.test")
		time.Sleep(time.Millisecond)
		wantWaiting(t, c) // SETTINGS of 0 are for a short time
		a.lease.Disown()
		time.Sleep(handshake)
		wantServed(t, c)
		if c.lease.ID() != 3 || c.took != handshake+time.Millisecond {
			t.Errorf("on %d after %v", c.lease.ID(), c.took)
		}
		r.conn(0).settings(1)
		if b := r.get("b.test"); b.lease.ID() != 1 {
			t.Errorf("b on %d", b.lease.ID())
		}
		if x := r.Conns()[0].Excluded; !slices.Equal(x, []string{"a.test"}) {
			t.Errorf("excluded: %q", x)
		}
	})
}

// It may have ended by then, and the pool too.
func TestM3_DisownedAfterItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		a := r.get("a.test")
		a.end()
		r.conn(0).die()
		synctest.Wait()
		a.lease.Disown()
		if r.Sizes() != (pool.Sizes{}) {
			t.Errorf("%+v", r.Sizes())
		}
		b := r.get("a.test")
		r.Close()
		b.lease.Disown()
	})
}

// C12: what is answered to requests that name another host to the server says
// nothing of the one that their connection is for.
func TestM3_FrontedRequestsDisownNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		q := request("a.test")
		q.Fronts = true
		a := r.do(q)
		a.end()
		a.lease.Disown()
		if a := r.get("a.test"); a.kind() != coalesce.ReasonOwn {
			t.Errorf("a: %s", a.kind())
		}
	})
}

// Nor does what a host was answered speak for them: they are sent again.
func TestM5_FrontedRequestsAreRetried(t *testing.T) {
	for _, ttl := range []time.Duration{time.Minute, -1} {
		bubble(t, func(t *testing.T, r *rig) {
			r.shared("a.test")
			r.get("a.test").misdirect() // fresh
			if r.get("a.test").misdirect() {
				t.Error("retried, though it is known")
			}
			q := request("a.test")
			q.Fronts = true
			if !r.do(q).misdirect() {
				t.Error("not retried for what another host was answered")
			}
		}, misdirectedTTL(ttl))
	}
}

// C10: a 421 says nothing of connections to another address. Where addresses are
// not asked for, the host's standing on them stays, its proof included (M6). Nor,
// without a TTL, of others to the same one.
func TestC10_StandingElsewhereStays(t *testing.T) {
	for _, tt := range []struct {
		name string
		opt  option
		host func(r *rig)
	}{
		{"another address", policy(coalesce.Policy{Match: coalesce.MatchCertificate}), func(r *rig) {
			r.host(leaf("a.test", "b.test", "c.test"), addr1, "a.test", "b.test")
			r.host(leaf("a.test", "b.test", "c.test"), addr2, "c.test")
		}},
		{"negative TTL", misdirectedTTL(-1), func(r *rig) { r.shared("a.test", "b.test", "c.test") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				tt.host(r)
				r.maxStreams = 1
				a := r.get("a.test")
				r.do(own("c.test")).end()
				b := r.get("b.test") // on 2, since 1 is full
				b.lease.Answered()
				a.end()
				b2 := r.get("b.test") // on 1, since 2 is
				if b.lease.ID() != 2 || b2.lease.ID() != 1 {
					t.Fatalf("b on %d and %d", b.lease.ID(), b2.lease.ID())
				}
				b2.misdirect()
				b.end()
				q := request("b.test")
				q.ProvenOnly = true
				if b := r.do(q); b.lease.ID() != 2 {
					t.Errorf("b on %d", b.lease.ID())
				}
			}, tt.opt)
		})
	}
}

// M3, M5: another port is another origin, also where what dials leads to one
// address; and what one partition has been answered, no other learns of (C1).
func TestM3_OtherOriginsAreOthers(t *testing.T) {
	for name, other := range map[string]func(*pool.Request){
		"port":      func(q *pool.Request) { q.Port = 8443 },
		"partition": func(q *pool.Request) { q.Partition = "p" },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test", "b.test")
				r.shape = func(_ pool.Target, d *pool.Dialed) { d.RemoteAddr = netip.AddrPortFrom(addr1, 9000) }
				if r.get("a.test").lease.Misdirected() || r.get("a.test").lease.Misdirected() || !r.get("b.test").lease.Misdirected() {
					t.Error("M1, M5: of a fresh connection's 421, a known one, and a shared one, the last alone is retried")
				}
				a, b := request("a.test"), request("b.test")
				other(&a)
				other(&b)
				r.do(a).lease.Answered()
				if !r.do(a).lease.Misdirected() {
					t.Error("a: known from elsewhere")
				}
				if b := r.do(b); !b.lease.Shared() {
					t.Error("b: kept off from elsewhere")
				}
			})
		})
	}
}
