package pool_test

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// O6: what keeps a connection in use, though another one's set has all of its
// origins and more.
func TestO6_NotRetired(t *testing.T) {
	type setup struct {
		name   string
		policy coalesce.Policy
		limits pool.Limits
		set    func(r *rig)                 // before the connections are opened
		then   func(r *rig, a, c *fakeConn) // after that, before the frames
		frames func(r *rig, a, c *fakeConn) // nil: a lists b, c lists a and b
	}
	for _, tt := range []setup{
		{name: "equal sets", frames: func(_ *rig, a, c *fakeConn) { a.lists("b.test", "c.test"); c.lists("a.test", "b.test") }},
		{name: "sets that overlap", frames: func(_ *rig, a, c *fakeConn) { a.lists("x.test"); c.lists("a.test", "b.test") }},
		{name: "no frame on the smaller", frames: func(_ *rig, _, c *fakeConn) { c.lists("a.test", "b.test") }},
		{name: "no frame on the larger", frames: func(_ *rig, a, _ *fakeConn) { a.lists() }},
		{name: "another port listed", frames: func(_ *rig, a, c *fakeConn) {
			a.lists("b.test")
			c.lists("a.test:8443", "b.test", "x.test")
		}},
		{
			// A server that names others' origins without a certificate for
			// them must not end their connections.
			name: "certificate does not cover the host",
			set:  func(r *rig) { r.host(leaf("c.test"), addr1, "c.test") },
		},
		{
			name: "certificate does not cover another host of the set",
			set:  func(r *rig) { r.host(leaf("a.test", "c.test"), addr1, "c.test") },
		},
		{
			name: "another address",
			set:  func(r *rig) { r.dns["c.test"] = []netip.Addr{addr2} },
		},
		{
			name: "an address that nobody looked up",
			set: func(r *rig) {
				r.dns["a.test"] = []netip.Addr{addr3}
				r.shape = func(_ pool.Target, d *pool.Dialed) { d.RemoteAddr = netip.AddrPortFrom(addr1, 443) }
			},
		},
		{
			name: "C3: the larger one is not verified",
			set: func(r *rig) {
				r.shape = func(to pool.Target, d *pool.Dialed) {
					if to.Host == "c.test" {
						d.TLS.VerifiedChains = nil
					}
				}
			},
		},
		{
			name: "C7: client certificate",
			set: func(r *rig) {
				r.shape = func(to pool.Target, d *pool.Dialed) { d.ClientCert = to.Host == "c.test" }
			},
		},
		{
			name: "C6: VerifyConnection refuses",
			set: func(r *rig) {
				r.shape = func(_ pool.Target, d *pool.Dialed) {
					d.Verify = func(s tls.ConnectionState) error { return errors.New("not pinned") }
				}
			},
		},
		{name: "C11: vetoed", policy: coalesce.Policy{Allow: func(c coalesce.Candidate) bool { return c.ConnHost != "c.test" || c.Host != "a.test" }}},
		{name: "C2: MaxHostsPerConn", limits: pool.Limits{MaxHostsPerConn: 2}, then: func(r *rig, _, _ *fakeConn) { r.get("b.test").end() }},
		{name: "C9: never", policy: coalesce.Policy{Match: coalesce.MatchNever}},
		{
			name: "C10: misdirected there",
			then: func(r *rig, a, c *fakeConn) {
				a.settings(0)
				on := r.get("a.test")
				if on.conn() != c {
					r.t.Fatalf("a on %d", on.lease.ID())
				}
				on.lease.Misdirected()
				on.end()
				a.settings(100)
			},
		},
		{name: "the larger one drains", then: func(r *rig, _, c *fakeConn) {
			r.do(own("c.test"))
			c.obs.GoAway(1, 0)
		}},
		{name: "its own requests only", then: func(r *rig, _, _ *fakeConn) { r.do(own("a.test")).end() }},
		{name: "a body that cannot be had twice", then: func(r *rig, _, _ *fakeConn) {
			q := request("a.test")
			q.ProvenOnly = true
			r.do(q).end()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				a, c := r.pair(tt.set)
				if tt.then != nil {
					tt.then(r, a, c)
				}
				if tt.frames == nil {
					a.lists("b.test")
					c.lists("a.test", "b.test")
				} else {
					tt.frames(r, a, c)
				}
				if a.isClosed() || slices.ContainsFunc(r.Conns(), func(i pool.ConnInfo) bool { return i.Host == "a.test" && i.Draining }) {
					t.Error("retired")
				}
				r.get("a.test").end()
				synctest.Wait()
				if a.isClosed() {
					t.Error("retired when idle")
				}
			}, policy(tt.policy), limits(tt.limits))
		})
	}
}
