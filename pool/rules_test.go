package pool_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// wantVerdict demands what the rules say of connection 1 for host, and that
// Get agrees with it.
func wantVerdict(t *testing.T, r *rig, q pool.Request, want coalesce.Reason) {
	t.Helper()
	d, err := r.Explain(t.Context(), q)
	if err != nil || len(d.Considered) == 0 || d.Considered[0].Reason != want {
		t.Errorf("Explain: %+v, %v; want %s", d, err, want)
	}
	before := len(r.dialed())
	q.Explain = true
	c := r.do(q)
	defer c.end()
	if got := c.lease.Decision().Considered; len(got) == 0 || got[0].Reason != want {
		t.Errorf("considered %+v, want %s", got, want)
	}
	wantShared := want == coalesce.ReasonShared
	if c.lease.Shared() != wantShared || len(r.dialed()) == before != wantShared {
		t.Errorf("shared %t, dials %q; want %s", c.lease.Shared(), r.dialed(), want)
	}
	if d.Shared != wantShared {
		t.Errorf("Explain says shared %t", d.Shared)
	}
}

func TestC_RulesAsThePoolAppliesThem(t *testing.T) {
	for _, tt := range []struct {
		name string
		want coalesce.Reason
		opt  coalesce.Policy
		set  func(r *rig)
		then func(r *rig) // after connection 1 of a.test is open
		q    func(q *pool.Request)
	}{
		{name: "shared", want: coalesce.ReasonShared},
		{name: "C1 partition", want: coalesce.ReasonPartition, q: func(q *pool.Request) { q.Partition = "p" }},
		{name: "C1 port", want: coalesce.ReasonPort, q: func(q *pool.Request) { q.Port = 8443 }},
		{name: "C12 own", want: coalesce.ReasonDisabled, q: func(q *pool.Request) { q.Own = true }},
		{name: "C9 never", want: coalesce.ReasonDisabled, opt: coalesce.Policy{Match: coalesce.MatchNever}},
		{
			name: "C1 no h2", want: coalesce.ReasonUnverified,
			set: func(r *rig) {
				r.shape = func(_ pool.Target, d *pool.Dialed) { d.TLS.NegotiatedProtocol = "" }
			},
		},
		{
			name: "C3 not verified", want: coalesce.ReasonUnverified,
			set: func(r *rig) {
				r.shape = func(_ pool.Target, d *pool.Dialed) { d.TLS.VerifiedChains = nil }
			},
		},
		{
			name: "C3 fixed ServerName", want: coalesce.ReasonUnverified,
			set: func(r *rig) {
				r.shape = func(_ pool.Target, d *pool.Dialed) { d.TLS.ServerName = "fixed.test" }
			},
		},
		{
			name: "C4 expired", want: coalesce.ReasonExpired,
			set: func(r *rig) {
				c := leaf("a.test", "b.test")
				c.NotAfter = time.Now().Add(time.Minute)
				r.host(c, addr1, "a.test", "b.test")
			},
			then: func(*rig) { time.Sleep(time.Minute + 1) },
		},
		{
			name: "C4 last moment", want: coalesce.ReasonShared,
			set: func(r *rig) {
				c := leaf("a.test", "b.test")
				c.NotAfter = time.Now().Add(time.Minute)
				r.host(c, addr1, "a.test", "b.test")
			},
			then: func(*rig) { time.Sleep(time.Minute - 50*time.Millisecond) },
		},
		{
			name: "C7 client certificate", want: coalesce.ReasonClientCertificate,
			set: func(r *rig) { r.shape = func(_ pool.Target, d *pool.Dialed) { d.ClientCert = true } },
		},
		{
			name: "C7 client certificate, permitted", want: coalesce.ReasonShared,
			opt: coalesce.Policy{ShareClientCert: true},
			set: func(r *rig) { r.shape = func(_ pool.Target, d *pool.Dialed) { d.ClientCert = true } },
		},
		{
			name: "C8 fence", want: coalesce.ReasonNotInOriginSet,
			then: func(r *rig) { r.conn(0).obs.Origin([]string{"https://c.test"}, 0) },
		},
		{
			name: "C8 empty fence under MatchCertificate", want: coalesce.ReasonNotInOriginSet,
			opt:  coalesce.Policy{Match: coalesce.MatchCertificate},
			then: func(r *rig) { r.conn(0).obs.Origin(nil, 0) },
		},
		{
			name: "C8 listed", want: coalesce.ReasonShared,
			then: func(r *rig) { r.conn(0).obs.Origin([]string{"https://b.test"}, 0) },
		},
		{
			name: "C9 address", want: coalesce.ReasonAddressMismatch,
			set: func(r *rig) { r.dns["b.test"] = []netip.Addr{addr2} },
		},
		{
			name: "C9 listed is no address under MatchAddress", want: coalesce.ReasonAddressMismatch,
			set:  func(r *rig) { r.dns["b.test"] = []netip.Addr{addr2} },
			then: func(r *rig) { r.conn(0).obs.Origin([]string{"https://b.test"}, 0) },
		},
		{
			name: "C9 listed under MatchOrigin", want: coalesce.ReasonShared,
			opt:  coalesce.Policy{Match: coalesce.MatchOrigin},
			set:  func(r *rig) { r.dns["b.test"] = []netip.Addr{addr2} },
			then: func(r *rig) { r.conn(0).obs.Origin([]string{"https://b.test"}, 0) },
		},
		{
			name: "C9 certificate", want: coalesce.ReasonShared,
			opt: coalesce.Policy{Match: coalesce.MatchCertificate},
			set: func(r *rig) { r.dns["b.test"] = []netip.Addr{addr2} },
		},
		{
			name: "C6 refuses", want: coalesce.ReasonUnverified,
			set: func(r *rig) {
				r.shape = func(_ pool.Target, d *pool.Dialed) {
					d.Verify = func(s tls.ConnectionState) error {
						if s.ServerName != "a.test" {
							return errors.New("not pinned")
						}
						return nil
					}
				}
			},
		},
		{
			name: "C6 accepts", want: coalesce.ReasonShared,
			set: func(r *rig) {
				r.shape = func(_ pool.Target, d *pool.Dialed) { d.Verify = func(tls.ConnectionState) error { return nil } }
			},
		},
		{
			name: "C11 vetoed", want: coalesce.ReasonVetoed,
			opt: coalesce.Policy{Allow: func(c coalesce.Candidate) bool { return c.Host != "b.test" }},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test", "b.test")
				if tt.set != nil {
					tt.set(r)
				}
				r.get("a.test").end()
				if tt.then != nil {
					tt.then(r)
				}
				q := request("b.test")
				if tt.q != nil {
					tt.q(&q)
				}
				wantVerdict(t, r, q, tt.want)
			}, policy(tt.opt))
		})
	}
}

// C1: partitions share nothing, not even a host's own connection, a handshake
// or what a 421 taught.
func TestC1_PartitionsAreApart(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		q := request("a.test")
		q.Partition = "p"
		one, two := r.goGet("a.test"), r.goDo(q)
		wantWaiting(t, one, two)
		r.wantDials(2)
		time.Sleep(50 * time.Millisecond)
		wantServed(t, one, two)
		q.Host = "b.test"
		b := r.do(q)
		if !b.lease.Shared() || b.lease.ID() != two.lease.ID() {
			t.Errorf("b in p: %s on %d, want shared on %d", b.kind(), b.lease.ID(), two.lease.ID())
		}
		b.lease.Misdirected()
		if c := r.get("b.test"); c.lease.ID() != one.lease.ID() {
			t.Errorf("a 421 in partition p keeps b off in another")
		}
		r.wantLookups("a.test", 2)
	})
}

// C4: a host that was placed leaves when the certificate expires; the
// connection's own host stays.
func TestC4_PlacedHostLeavesAtExpiry(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		cert := leaf("a.test", "b.test")
		cert.NotAfter = time.Now().Add(time.Hour)
		r.host(cert, addr1, "a.test", "b.test")
		r.get("a.test").end()
		r.get("b.test").end()
		time.Sleep(time.Hour - 50*time.Millisecond)
		if c := r.get("b.test"); !c.lease.Shared() {
			t.Error("the last moment of validity counts")
		}
		time.Sleep(time.Nanosecond)
		if c := r.get("b.test"); c.lease.Shared() {
			t.Error("shared beyond the certificate's validity")
		}
		if c := r.get("a.test"); c.kind() != coalesce.ReasonOwn {
			t.Errorf("a: %s, want own", c.kind())
		}
		if got := r.Conns()[0].Hosts; !slices.Equal(got, []string{"a.test"}) {
			t.Errorf("hosts on the expired connection: %q", got)
		}
	}, policy(coalesce.Policy{AddressTTL: -1}))
}

// C8: an ORIGIN frame moves off the hosts that are placed outside of it.
func TestC8_FenceMovesPlacedHostOff(t *testing.T) {
	for _, match := range []coalesce.Match{coalesce.MatchAddress, coalesce.MatchOrigin, coalesce.MatchCertificate} {
		t.Run(match.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test", "b.test", "c.test")
				for _, h := range []string{"a.test", "b.test", "c.test"} {
					r.get(h).end()
				}
				r.wantDials(1)
				r.conn(0).obs.Origin([]string{"https://c.test"}, 0)
				if got := r.Conns()[0]; !slices.Equal(got.Hosts, []string{"a.test", "c.test"}) || !got.OriginSetSeen {
					t.Errorf("after the frame: %+v", got)
				}
				r.check()
				if b := r.get("b.test"); b.kind() != coalesce.ReasonDialed {
					t.Errorf("b: %s, want dialed", b.kind())
				}
				if c := r.get("c.test"); c.lease.ID() != 1 {
					t.Errorf("c on %d", c.lease.ID())
				}
				if a := r.get("a.test"); a.kind() != coalesce.ReasonOwn {
					t.Errorf("a: %s", a.kind())
				}
			}, policy(coalesce.Policy{Match: match}))
		})
	}
}

// C8 for requests in line: the fence comes while they wait for a stream.
func TestC8_FenceMovesWaiterOff(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.maxStreams = 0
		a := r.goGet("a.test")
		time.Sleep(50 * time.Millisecond)
		b := r.goGet("b.test")
		wantWaiting(t, a, b)
		a.cancel(nil)
		r.wantDials(1)
		r.set(func() { r.maxStreams = 1 })
		r.conn(0).obs.Origin(nil, 0)
		time.Sleep(50 * time.Millisecond)
		wantServed(t, b)
		if b.kind() != coalesce.ReasonDialed {
			t.Errorf("b: %s, want dialed", b.kind())
		}
	})
}

// C8: a host that has joined a handshake is not served before the server's first
// word, which may be a fence.
func TestC8_SharedRequestWaitsForTheFirstFrames(t *testing.T) {
	for _, tt := range []struct {
		name string
		then func(c *fakeConn)
		want coalesce.Reason
	}{
		{"a fence", func(c *fakeConn) { c.lists(); c.settings(100) }, coalesce.ReasonDialed},
		{"none", func(c *fakeConn) { c.settings(100) }, coalesce.ReasonJoined},
		{"not a word", func(*fakeConn) { time.Sleep(time.Second) }, coalesce.ReasonJoined},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test", "b.test")
				r.noSettings = true
				a := r.goGet("a.test")
				b := r.goGet("b.test")
				a.cancel(nil) // so that the one request that needs no SETTINGS is left for b
				time.Sleep(2 * handshake)
				wantWaiting(t, b)
				if a := r.get("a.test"); a.kind() != coalesce.ReasonOwn {
					t.Errorf("a: %s", a.kind())
				} else {
					a.end()
				}
				wantWaiting(t, b)
				tt.then(r.conn(0))
				if tt.want == coalesce.ReasonDialed {
					time.Sleep(handshake)
				}
				wantServed(t, b)
				if b.kind() != tt.want {
					t.Errorf("b: %s, want %s", b.kind(), tt.want)
				}
			})
		})
	}
}

// O7: a listed host need not be in DNS.
func TestO7_ListedHostWithoutDNS(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host(leaf("a.test", "hidden.test", "early.test"), addr1, "a.test")
		r.onDial = func(_ context.Context, d *fakeDial) { d.obs.Origin([]string{"https://early.test"}, 0) }
		r.get("a.test").end()
		r.conn(0).obs.Origin([]string{"https://hidden.test"}, 0)
		for _, h := range []string{"early.test", "hidden.test"} {
			if c := r.get(h); !c.lease.Shared() {
				t.Errorf("%s: %s", h, c.kind())
			}
			r.wantLookups(h, 0)
		}
	}, policy(coalesce.Policy{Match: coalesce.MatchOrigin}))
}

// O4: what a server lists beyond the cap is counted, here and on the way.
func TestO4_DroppedOriginsAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.get("a.test").end()
		c := r.conn(0)
		c.lists(names("h%d.test", 200)...)
		c.obs.Origin([]string{"https://b.test"}, 7)
		info := r.Conns()[0]
		if len(info.OriginSet) != 128 || info.OriginsDropped != 200-127+1+7 {
			t.Errorf("%d origins, %d dropped", len(info.OriginSet), info.OriginsDropped)
		}
		if b := r.get("b.test"); b.lease.Shared() {
			t.Error("an origin beyond the cap is listed")
		}
	})
}

// A request that waits for a dial of its own moves to the connection that
// comes to list its host.
func TestO7_FrameFreesWaiter(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host(leaf("a.test", "b.test"), addr1, "a.test")
		r.host(leaf("b.test"), addr2, "b.test")
		r.get("a.test").end()
		r.set(func() { r.held = true })
		b := r.goGet("b.test")
		wantWaiting(t, b)
		r.conn(0).obs.Origin([]string{"https://b.test"}, 0)
		wantServed(t, b)
		if b.kind() != coalesce.ReasonShared || b.took != 0 {
			t.Errorf("b: %s after %v", b.kind(), b.took)
		}
	}, policy(coalesce.Policy{Match: coalesce.MatchOrigin}))
}

// C9: that two hosts have one address in common does not put them on a
// connection to another of their addresses.
func TestC9_OverlapIsNotTransitive(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host(leaf("a.test", "b.test", "c.test"), addr1, "a.test", "b.test", "c.test")
		r.dns["a.test"] = []netip.Addr{addr1, addr2}
		r.dns["b.test"] = []netip.Addr{addr2, addr3}
		r.dns["c.test"] = []netip.Addr{addr3, addr1}
		r.get("a.test").end() // connects to addr1
		if b := r.get("b.test"); b.lease.Shared() {
			t.Error("b shares a connection to an address that it does not have")
		}
		if c := r.get("c.test"); c.lease.ID() != 1 {
			t.Errorf("c: %s on %d, want shared on 1", c.kind(), c.lease.ID())
		}
	})
}

// C2: hosts beyond MaxHostsPerConn dial; those that are there stay.
func TestC2_MaxHostsPerConn(t *testing.T) {
	hosts := names("h%d.test", 7)
	bubble(t, func(t *testing.T, r *rig) {
		r.shared(hosts...)
		for round := range 3 {
			for i, h := range hosts {
				c := r.get(h)
				if want := uint64(i/3 + 1); c.lease.ID() != want {
					t.Errorf("round %d: %s on %d, want %d", round, h, c.lease.ID(), want)
				}
				c.end()
			}
		}
		for _, info := range r.Conns() {
			if len(info.Hosts) > 3 {
				t.Errorf("%d hosts on connection %d", len(info.Hosts), info.ID)
			}
		}
		r.wantDials(3)
	}, limits(pool.Limits{MaxHostsPerConn: 3}))
}

// C2: all at once, too.
func TestC2_MaxHostsPerConnAtOnce(t *testing.T) {
	hosts := names("h%d.test", 30)
	bubble(t, func(t *testing.T, r *rig) {
		r.shared(hosts...)
		calls := r.goGetAll(hosts...)
		for _, c := range calls {
			<-c.done
		}
		wantServed(t, calls...)
		for _, info := range r.Conns() {
			if len(info.Hosts) > 10 {
				t.Errorf("%d hosts on connection %d", len(info.Hosts), info.ID)
			}
		}
	}, limits(pool.Limits{MaxHostsPerConn: 10}))
}

// C2: the place of a host that leaves goes to one that waits for it.
func TestC2_PlaceOfHostThatLeaves(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.get("a.test")
		b := r.get("b.test")
		c := r.goGet("c.test")
		wantWaiting(t, c) // no third host, no second connection
		b.lease.Misdirected()
		wantServed(t, c)
		if !c.lease.Shared() {
			t.Errorf("c: %s", c.kind())
		}
	}, limits(pool.Limits{MaxHostsPerConn: 2, MaxConns: 1}))
}

// A placed host's connection is what Explain and Considered name too, when the
// address that justified it is no longer known.
func TestC9_ConsideredAgreesWithPlacement(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.get("a.test").end()
		r.get("b.test").end()
		time.Sleep(10 * time.Minute)
		q := request("b.test")
		q.Explain = true
		c := r.do(q)
		d := c.lease.Decision()
		if !d.Shared || len(d.Considered) != 1 || d.Considered[0].Reason != coalesce.ReasonShared {
			t.Errorf("decision %+v", d)
		}
	})
}
