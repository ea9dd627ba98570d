package coalesce_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// breach is a way to break one rule, in words of its own.
type breach struct {
	rule   string
	reason coalesce.Reason
	commit func(p *pair)
	// void reports whether the rule does not forbid it after all.
	void func(p *pair) bool
}

// breaches are in the order in which the rules are documented.
var breaches = []breach{
	{"C9 never", coalesce.ReasonDisabled, func(p *pair) { p.policy.Match = coalesce.MatchNever }, nil},
	{"C12", coalesce.ReasonDisabled, func(p *pair) { p.request.Own = true }, nil},
	{"C1 port", coalesce.ReasonPort, func(p *pair) { p.request.Port = 8443 }, nil},
	{"C1 partition", coalesce.ReasonPartition, func(p *pair) { p.request.Partition = "q" }, nil},
	{"C2 draining", coalesce.ReasonDraining, func(p *pair) { p.conn.Draining = true }, nil},
	{"C2 full", coalesce.ReasonFull, func(p *pair) { p.conn.HostsFull = true }, nil},
	{"C1 h2", coalesce.ReasonUnverified, func(p *pair) { p.conn.TLS.NegotiatedProtocol = "http/1.1" }, nil},
	{"C3 chains", coalesce.ReasonUnverified, func(p *pair) { p.conn.TLS.VerifiedChains = nil }, nil},
	{"C3 name", coalesce.ReasonUnverified, func(p *pair) { p.conn.TLS.ServerName = "b.example.com" }, nil},
	{"C4 before", coalesce.ReasonExpired, func(p *pair) { p.now = notBefore.Add(-1) }, nil},
	{"C4 after", coalesce.ReasonExpired, func(p *pair) { p.now = notAfter.Add(1) }, nil},
	{"C5", coalesce.ReasonNotCovered, func(p *pair) { p.request.Host = "b.example.org" }, nil},
	{"C6", coalesce.ReasonUnverified, func(p *pair) { p.request.Said = coalesce.ReasonUnverified }, nil},
	{
		"C7", coalesce.ReasonClientCertificate, func(p *pair) { p.conn.ClientCert = true },
		func(p *pair) bool { return p.policy.ShareClientCert },
	},
	{"C8", coalesce.ReasonNotInOriginSet, func(p *pair) { p.origins("https://c.example.com") }, nil},
	{
		"C9 address", coalesce.ReasonAddressMismatch, func(p *pair) { p.request.Addrs = []netip.Addr{other} },
		func(p *pair) bool {
			listed := p.conn.Origins != nil && p.conn.Origins.Contains(p.request.Host, p.request.Port)
			return p.policy.Match == coalesce.MatchCertificate || p.policy.Match == coalesce.MatchOrigin && listed
		},
	},
	{"C10", coalesce.ReasonMisdirected, func(p *pair) { p.request.Misdirected = true }, nil},
	{"C11", coalesce.ReasonVetoed, func(p *pair) { p.request.Said = coalesce.ReasonVetoed }, nil},
}

// C1 to C12: whatever is broken, the first rule in order gives the reason; a
// connection is shared if nothing is, and never else.
func TestC_FirstBrokenRuleIsTheReason(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := shareable()
		p.policy.Match = rapid.SampledFrom([]coalesce.Match{coalesce.MatchAddress, coalesce.MatchOrigin, coalesce.MatchCertificate}).Draw(t, "match")
		p.policy.ShareClientCert = rapid.Bool().Draw(t, "ShareClientCert")
		if rapid.Bool().Draw(t, "listed") {
			p.origins("https://b.example.com", "https://b.example.com:8443", "https://b.example.org", "https://b.example.org:8443")
		}
		var rules []string
		for _, b := range breaches {
			rules = append(rules, b.rule)
		}
		broken := rapid.SliceOfNDistinct(rapid.SampledFrom(rules), 0, 3, rapid.ID[string]).Filter(func(b []string) bool {
			return !slices.Contains(b, "C6") || !slices.Contains(b, "C11") // the caller's code has one answer
		}).Draw(t, "broken")
		want, rule := coalesce.ReasonShared, "none"
		for _, b := range breaches {
			if slices.Contains(broken, b.rule) {
				b.commit(p)
			}
		}
		for _, b := range breaches {
			if slices.Contains(broken, b.rule) && (b.void == nil || !b.void(p)) {
				want, rule = b.reason, b.rule
				break
			}
		}
		if got := p.judge(); got != want {
			t.Fatalf("%q; want %q by %s of %q", got, want, rule, broken)
		}
		if got := p.judge(); got != want {
			t.Fatalf("asked again: %q; want %q", got, want)
		}
	})
}
