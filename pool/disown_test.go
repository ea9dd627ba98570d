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
				var retried []bool
				for _, h := range []string{"a.test", "a.test", "b.test"} {
					retried = append(retried, r.get(h).lease.Misdirected())
				}
				if !slices.Equal(retried, []bool{false, false, true}) {
					t.Errorf("M1, M5: a 421 of a fresh connection, a known one, and a shared one are retried: %v", retried)
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

// M1: the retry of a 421 is sent on a connection of the host's own, neither on a
// further one of other hosts nor on one that is being dialed for them.
func TestM1_ARetryIsNotShared(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		names := []string{"a.test", "b.test", "c.test", "d.test"}
		r.host(leaf(names...), addr1, "a.test")
		r.host(leaf(names...), addr2, "b.test", "c.test")
		r.host(leaf(names...), addr3, "d.test")
		r.dns["b.test"] = []netip.Addr{addr1, addr2, addr3}
		r.get("a.test").end()
		r.get("c.test").end()
		b := r.get("b.test")
		if !b.lease.Shared() || !b.misdirect() {
			t.Fatalf("b: %s", b.kind())
		}
		d := r.goGet("d.test")
		time.Sleep(handshake / 2)
		q := request("b.test")
		q.Avoid = b.lease.ID()
		again := r.do(q)
		if again.kind() != coalesce.ReasonDialed || again.took != handshake {
			t.Errorf("the retry: %s on %d after %v", again.kind(), again.lease.ID(), again.took)
		}
		wantServed(t, d)
	})
}

// What Explain says of a connection that is disowned.
func TestM3_ExplainKnowsWhoIsDisowned(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		a := r.get("a.test")
		a.end()
		a.lease.Disown()
		d, err := r.Explain(t.Context(), request("a.test"))
		if err != nil || d.Reason != coalesce.ReasonDialed || len(d.Considered) != 1 || d.Considered[0].Reason != coalesce.ReasonMisdirected {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// A request in line for a connection that is disowned while the caller's code is
// asked about another one is not served on it.
func TestM3_DisownedDuringCallback(t *testing.T) {
	var answer chan bool
	bubble(t, func(t *testing.T, r *rig) {
		answer = make(chan bool)
		r.shared("a.test", "c.test")
		r.maxStreams = 1
		a := r.get("a.test")
		r.do(own("c.test")).end()
		w := r.goGet("a.test")
		wantWaiting(t, w)
		a.lease.Disown()
		a.end()
		wantWaiting(t, w)
		answer <- true
		wantServed(t, w)
		if w.lease.ID() != 2 {
			t.Errorf("on %d", w.lease.ID())
		}
	}, policy(coalesce.Policy{Allow: func(coalesce.Candidate) bool { return <-answer }}))
}

// M1: a request that has waited for a handshake, and is then served on another
// connection of its host's, has not had that one dialed for it.
func TestM1_AFreeStreamIsNotFresh(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host(leaf("a.test"), addr1, "a.test")
		r.host(leaf("b.test"), addr1, "b.test")
		r.maxStreams = 1
		b := r.get("b.test")
		a := r.goGet("a.test")
		w := r.goGet("b.test") // waits for a's handshake, and then for another one
		time.Sleep(handshake + handshake/2)
		wantServed(t, a)
		wantWaiting(t, w)
		b.end()
		wantServed(t, w)
		if w.kind() != coalesce.ReasonOwn || w.lease.Fresh() || w.lease.ID() != 1 {
			t.Errorf("%s on %d", w.kind(), w.lease.ID())
		}
	})
}
