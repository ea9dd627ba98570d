package coalesce_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

var (
	remote = netip.MustParseAddrPort("192.0.2.9:443")
	other  = netip.MustParseAddr("192.0.2.10")
)

// pair is a connection and a request that every rule admits; a case changes
// what it is about.
type pair struct {
	policy  coalesce.Policy
	conn    coalesce.Conn
	request coalesce.Request
	now     time.Time
}

func shareable() *pair {
	cert := leaf("a.example.com", "*.example.com", "ip:192.0.2.9", "ip:2001:db8::9", "ip:fe80::9")
	return &pair{
		conn: coalesce.Conn{
			Host: "a.example.com", Port: 443, Partition: "p", RemoteAddr: remote,
			TLS: &tls.ConnectionState{
				HandshakeComplete: true, NegotiatedProtocol: "h2", ServerName: "a.example.com",
				PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}},
			},
			Coverage: coalesce.NewCoverage(cert),
		},
		request: coalesce.Request{Host: "b.example.com", Port: 443, Partition: "p", Addrs: []netip.Addr{other, remote.Addr()}},
		now:     now,
	}
}

func (p *pair) judge() coalesce.Reason { return p.policy.Judge(&p.conn, &p.request, p.now) }

func (p *pair) origins(entries ...string) {
	p.conn.Origins = new(coalesce.OriginSet)
	p.conn.Origins.Init(p.conn.Host, p.conn.Port)
	p.conn.Origins.Add(entries, 0)
}

type judgeCase struct {
	name   string
	change func(*pair)
	want   coalesce.Reason
}

func runJudge(t *testing.T, cases []judgeCase) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			p := shareable()
			tt.change(p)
			if got := p.judge(); got != tt.want {
				t.Errorf("Judge = %q; want %q", got, tt.want)
			}
		})
	}
}

func TestJudgeShares(t *testing.T) {
	runJudge(t, []judgeCase{{"all rules hold", func(p *pair) {}, coalesce.ReasonShared}})
}

func TestJudgeOwn(t *testing.T) {
	own := func(change func(*pair)) func(*pair) {
		return func(p *pair) {
			p.request = coalesce.Request{Host: "a.example.com", Port: 443, Partition: "p"}
			change(p)
		}
	}
	runJudge(t, []judgeCase{
		{"plain", own(func(p *pair) {}), coalesce.ReasonOwn},
		{"own connections only", own(func(p *pair) { p.request.Own = true }), coalesce.ReasonOwn},
		{"sharing off", own(func(p *pair) { p.policy.Match = coalesce.MatchNever }), coalesce.ReasonOwn},
		{"unverified", own(func(p *pair) { p.conn.TLS = nil; p.conn.Coverage = nil }), coalesce.ReasonOwn},
		{"expired", own(func(p *pair) { p.now = notAfter.AddDate(1, 0, 0) }), coalesce.ReasonOwn},
		{"client certificate", own(func(p *pair) { p.conn.ClientCert = true }), coalesce.ReasonOwn},
		{"hosts full", own(func(p *pair) { p.conn.HostsFull = true }), coalesce.ReasonOwn},
		{"outside its origin set", own(func(p *pair) { p.origins(); p.conn.Origins.Remove("a.example.com", 443) }), coalesce.ReasonOwn},
		{"misdirected", own(func(p *pair) { p.request.Misdirected = true }), coalesce.ReasonOwn},
		{"draining", own(func(p *pair) { p.conn.Draining = true }), coalesce.ReasonDraining},
		{"other port", own(func(p *pair) { p.request.Port = 8443 }), coalesce.ReasonPort},
		{"other partition", own(func(p *pair) { p.request.Partition = "q" }), coalesce.ReasonPartition},
	})
}

func TestC1_PortPartitionProtocol(t *testing.T) {
	runJudge(t, []judgeCase{
		{"port", func(p *pair) { p.request.Port = 8443 }, coalesce.ReasonPort},
		{"partition", func(p *pair) { p.request.Partition = "" }, coalesce.ReasonPartition},
		{"another port, the same on both", func(p *pair) { p.request.Port, p.conn.Port = 8443, 8443 }, coalesce.ReasonShared},
		{"http/1.1", func(p *pair) { p.conn.TLS.NegotiatedProtocol = "http/1.1" }, coalesce.ReasonUnverified},
		{"no ALPN", func(p *pair) { p.conn.TLS.NegotiatedProtocol = "" }, coalesce.ReasonUnverified},
	})
}

func TestC2_DrainingFull(t *testing.T) {
	runJudge(t, []judgeCase{
		{"draining", func(p *pair) { p.conn.Draining = true }, coalesce.ReasonDraining},
		{"full", func(p *pair) { p.conn.HostsFull = true }, coalesce.ReasonFull},
	})
}

func TestC3_Unverified(t *testing.T) {
	dialed := func(host, serverName string) func(*pair) {
		return func(p *pair) { p.conn.Host, p.conn.TLS.ServerName = host, serverName }
	}
	runJudge(t, []judgeCase{
		{"no TLS state", func(p *pair) { p.conn.TLS = nil }, coalesce.ReasonUnverified},
		{"no coverage", func(p *pair) { p.conn.Coverage = nil }, coalesce.ReasonUnverified},
		{"InsecureSkipVerify", func(p *pair) { p.conn.TLS.VerifiedChains = nil }, coalesce.ReasonUnverified},
		{"fixed ServerName", dialed("a.example.com", "c.example.com"), coalesce.ReasonUnverified},
		{"fixed ServerName, the asking host", dialed("a.example.com", "b.example.com"), coalesce.ReasonUnverified},
		{"fixed ServerName, an address", dialed("a.example.com", ""), coalesce.ReasonUnverified},
		{"ServerName in upper case", dialed("a.example.com", "A.Example.COM"), coalesce.ReasonShared},
		{"ServerName with a final dot", dialed("a.example.com", "a.example.com."), coalesce.ReasonShared},
		{"ServerName with a Kelvin sign", dialed("k.example.com", "\u212a.example.com"), coalesce.ReasonUnverified},
		{"ServerName of equal length", dialed("k.example.com", "l.example.com"), coalesce.ReasonUnverified},
		{"dialed by address", dialed("192.0.2.9", ""), coalesce.ReasonShared},
		{"dialed by IPv6 address", dialed("2001:db8::9", ""), coalesce.ReasonShared},
		{"dialed by address, fixed ServerName", dialed("192.0.2.9", "a.example.com"), coalesce.ReasonUnverified},
		{"dialed by an address not named", dialed("192.0.2.10", ""), coalesce.ReasonUnverified},
		{"dialed by an address with zone", dialed("fe80::9%eth0", ""), coalesce.ReasonUnverified},
	})
}

func TestC4_Expired(t *testing.T) {
	runJudge(t, []judgeCase{
		{"before", func(p *pair) { p.now = notBefore.Add(-1) }, coalesce.ReasonExpired},
		{"first moment", func(p *pair) { p.now = notBefore }, coalesce.ReasonShared},
		{"last moment", func(p *pair) { p.now = notAfter }, coalesce.ReasonShared},
		{"after", func(p *pair) { p.now = notAfter.Add(1) }, coalesce.ReasonExpired},
	})
}

func TestC5_NotCovered(t *testing.T) {
	ask := func(host string) func(*pair) { return func(p *pair) { p.request.Host = host } }
	runJudge(t, []judgeCase{
		{"other domain", ask("b.example.org"), coalesce.ReasonNotCovered},
		{"two labels under the wildcard", ask("c.b.example.com"), coalesce.ReasonNotCovered},
		{"address", ask("192.0.2.9"), coalesce.ReasonShared},
		{"address not named", ask("192.0.2.10"), coalesce.ReasonNotCovered},
		{"certificate alone still has to cover", func(p *pair) {
			p.request.Host, p.policy.Match = "b.example.org", coalesce.MatchCertificate
		}, coalesce.ReasonNotCovered},
		{"a listed origin still has to be covered", func(p *pair) {
			p.request.Host, p.policy.Match = "b.example.org", coalesce.MatchOrigin
			p.origins("https://b.example.org")
		}, coalesce.ReasonNotCovered},
	})
}

func TestC7_ClientCertificate(t *testing.T) {
	runJudge(t, []judgeCase{
		{"sent", func(p *pair) { p.conn.ClientCert = true }, coalesce.ReasonClientCertificate},
		{"sent, ShareClientCert", func(p *pair) { p.conn.ClientCert, p.policy.ShareClientCert = true, true }, coalesce.ReasonShared},
	})
}

func TestC8_OriginSetIsAFence(t *testing.T) {
	for _, match := range []coalesce.Match{coalesce.MatchAddress, coalesce.MatchOrigin, coalesce.MatchCertificate} {
		fence := func(entries ...string) func(*pair) {
			return func(p *pair) { p.policy.Match = match; p.origins(entries...) }
		}
		t.Run(match.String(), func(t *testing.T) {
			runJudge(t, []judgeCase{
				{"no frame", func(p *pair) { p.policy.Match = match; p.conn.Origins = new(coalesce.OriginSet) }, coalesce.ReasonShared},
				{"empty frame", fence(), coalesce.ReasonNotInOriginSet},
				{"another host", fence("https://c.example.com"), coalesce.ReasonNotInOriginSet},
				{"another port", fence("https://b.example.com:8443"), coalesce.ReasonNotInOriginSet},
				{"a wildcard", fence("https://*.example.com"), coalesce.ReasonNotInOriginSet},
				{"listed", fence("https://b.example.com"), coalesce.ReasonShared},
				{"listed, then 421", func(p *pair) {
					fence("https://b.example.com")(p)
					p.conn.Origins.Remove("b.example.com", 443)
				}, coalesce.ReasonNotInOriginSet},
			})
		})
	}
}

func TestC9_AddressMismatch(t *testing.T) {
	addrs := func(remote string, addrs ...string) func(*pair) {
		return func(p *pair) {
			p.conn.RemoteAddr, p.request.Addrs = netip.AddrPort{}, nil
			if remote != "" {
				p.conn.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(remote), 443)
			}
			for _, a := range addrs {
				p.request.Addrs = append(p.request.Addrs, netip.MustParseAddr(a))
			}
		}
	}
	runJudge(t, []judgeCase{
		{"first of two", addrs("192.0.2.9", "192.0.2.9", "192.0.2.10"), coalesce.ReasonShared},
		{"second of two", addrs("192.0.2.9", "192.0.2.10", "192.0.2.9"), coalesce.ReasonShared},
		{"others only", addrs("192.0.2.9", "192.0.2.10", "2001:db8::9"), coalesce.ReasonAddressMismatch},
		{"not looked up", addrs("192.0.2.9"), coalesce.ReasonAddressMismatch},
		{"mapped peer", addrs("::ffff:192.0.2.9", "192.0.2.9"), coalesce.ReasonShared},
		{"mapped answer", addrs("192.0.2.9", "::ffff:192.0.2.9"), coalesce.ReasonShared},
		{"IPv6", addrs("2001:db8::9", "2001:db8::9"), coalesce.ReasonShared},
		{"same zone", addrs("fe80::9%eth0", "fe80::9%eth0"), coalesce.ReasonShared},
		{"other zone", addrs("fe80::9%eth0", "fe80::9%eth1"), coalesce.ReasonAddressMismatch},
		{"zone and none", addrs("fe80::9%eth0", "fe80::9"), coalesce.ReasonAddressMismatch},
		{"zone of a global answer", addrs("2001:db8::9", "2001:db8::9%eth0"), coalesce.ReasonShared},
		{"zone of a global peer", addrs("2001:db8::9%eth0", "2001:db8::9"), coalesce.ReasonShared},
		{"a thousand others", func(p *pair) {
			p.request.Addrs = nil
			for i := range 1000 {
				p.request.Addrs = append(p.request.Addrs, netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}))
			}
		}, coalesce.ReasonAddressMismatch},
		{"mapped with a zone", addrs("::ffff:192.0.2.9%eth0", "192.0.2.9"), coalesce.ReasonAddressMismatch},
		{"unknown peer", addrs("", "192.0.2.9"), coalesce.ReasonAddressMismatch},
		{"unknown peer, unset answer", func(p *pair) {
			p.conn.RemoteAddr, p.request.Addrs = netip.AddrPort{}, []netip.Addr{{}}
		}, coalesce.ReasonAddressMismatch},
		{"literal, not looked up", func(p *pair) { p.request.Host, p.request.Addrs = "192.0.2.9", nil }, coalesce.ReasonShared},
		{"literal of another address", func(p *pair) { p.request.Host, p.request.Addrs = "2001:db8::9", nil }, coalesce.ReasonAddressMismatch},
		{"listed, but Match is the address", func(p *pair) {
			addrs("192.0.2.9", "192.0.2.10")(p)
			p.origins("https://b.example.com")
		}, coalesce.ReasonAddressMismatch},
	})
}

func TestC9_Match(t *testing.T) {
	elsewhere := func(match coalesce.Match, entries ...string) func(*pair) {
		return func(p *pair) {
			p.policy.Match, p.request.Addrs = match, nil
			if entries != nil {
				p.origins(entries...)
			}
		}
	}
	runJudge(t, []judgeCase{
		{"origin, listed, no DNS (O7)", elsewhere(coalesce.MatchOrigin, "https://b.example.com"), coalesce.ReasonShared},
		{"origin, no frame, no DNS", elsewhere(coalesce.MatchOrigin), coalesce.ReasonAddressMismatch},
		{"origin, no frame, same address", func(p *pair) { p.policy.Match = coalesce.MatchOrigin }, coalesce.ReasonShared},
		{"certificate, no DNS", elsewhere(coalesce.MatchCertificate), coalesce.ReasonShared},
		{"never", func(p *pair) { p.policy.Match = coalesce.MatchNever }, coalesce.ReasonDisabled},
		{"past the constants", func(p *pair) { p.policy.Match = coalesce.MatchNever + 1 }, coalesce.ReasonDisabled},
		{"below the constants", func(p *pair) { p.policy.Match = -1 }, coalesce.ReasonDisabled},
	})
}

func TestC10_Misdirected(t *testing.T) {
	runJudge(t, []judgeCase{
		{"misdirected", func(p *pair) { p.request.Misdirected = true }, coalesce.ReasonMisdirected},
		{"under MatchCertificate", func(p *pair) { p.request.Misdirected, p.policy.Match = true, coalesce.MatchCertificate }, coalesce.ReasonMisdirected},
	})
}

// C6 and C11 have their places in the order once the caller's code has been
// asked.
func TestC6_C11_Said(t *testing.T) {
	said := func(r coalesce.Reason) func(*pair) { return func(p *pair) { p.request.Said = r } }
	runJudge(t, []judgeCase{
		{"not asked", said(""), coalesce.ReasonShared},
		{"agreed", said(coalesce.ReasonShared), coalesce.ReasonShared},
		{"VerifyConnection refused", said(coalesce.ReasonUnverified), coalesce.ReasonUnverified},
		{"Allow refused", said(coalesce.ReasonVetoed), coalesce.ReasonVetoed},
		{"own, whatever was said", func(p *pair) {
			p.request.Host, p.request.Said = "a.example.com", coalesce.ReasonVetoed
		}, coalesce.ReasonOwn},
	})
}

func TestC12_OwnOnly(t *testing.T) {
	runJudge(t, []judgeCase{{"own only", func(p *pair) { p.request.Own = true }, coalesce.ReasonDisabled}})
}

// Every rule fails at first; they are mended one by one in the order in which
// they are documented.
func TestJudgeOrder(t *testing.T) {
	p := shareable()
	good := shareable()
	p.request = coalesce.Request{Host: "b.example.org", Port: 1, Own: true, Misdirected: true, Said: coalesce.ReasonUnverified}
	p.conn.Draining, p.conn.HostsFull, p.conn.ClientCert = true, true, true
	p.conn.TLS = nil
	p.now = notAfter.Add(1)
	p.origins()
	for _, step := range []struct {
		want coalesce.Reason
		mend func()
	}{
		{coalesce.ReasonDisabled, func() { p.request.Own = false }},
		{coalesce.ReasonPort, func() { p.request.Port = 443 }},
		{coalesce.ReasonPartition, func() { p.request.Partition = "p" }},
		{coalesce.ReasonDraining, func() { p.conn.Draining = false }},
		{coalesce.ReasonFull, func() { p.conn.HostsFull = false }},
		{coalesce.ReasonUnverified, func() { p.conn.TLS = good.conn.TLS }},
		{coalesce.ReasonExpired, func() { p.now = now }},
		{coalesce.ReasonNotCovered, func() { p.request.Host = "b.example.com" }},
		{coalesce.ReasonUnverified, func() { p.request.Said = coalesce.ReasonVetoed }},
		{coalesce.ReasonClientCertificate, func() { p.conn.ClientCert = false }},
		{coalesce.ReasonNotInOriginSet, func() { p.conn.Origins = nil }},
		{coalesce.ReasonAddressMismatch, func() { p.request.Addrs = good.request.Addrs }},
		{coalesce.ReasonMisdirected, func() { p.request.Misdirected = false }},
		{coalesce.ReasonVetoed, func() { p.request.Said = coalesce.ReasonShared }},
		{coalesce.ReasonShared, func() {}},
	} {
		if got := p.judge(); got != step.want {
			t.Fatalf("Judge = %q; want %q", got, step.want)
		}
		step.mend()
	}
}

func TestC6_VerifyConnection(t *testing.T) {
	p := shareable()
	if p.policy.Consults(&p.conn) {
		t.Error("Consults without anything to ask")
	}
	if got := p.policy.Consult(&p.conn, &p.request); got != coalesce.ReasonShared {
		t.Errorf("nothing to ask: %q", got)
	}
	var asked tls.ConnectionState
	var answer error
	p.conn.Verify = func(s tls.ConnectionState) error { asked = s; return answer }
	if !p.policy.Consults(&p.conn) {
		t.Error("Consults does not see Verify")
	}
	if got := p.policy.Consult(&p.conn, &p.request); got != coalesce.ReasonShared {
		t.Errorf("accepted: %q", got)
	}
	if asked.ServerName != "b.example.com" || len(asked.PeerCertificates) != 1 || p.conn.TLS.ServerName != "a.example.com" {
		t.Errorf("asked about %q; the connection's state has %q", asked.ServerName, p.conn.TLS.ServerName)
	}
	answer = errors.New("pin does not match")
	p.policy.Allow = func(coalesce.Candidate) bool { t.Error("Allow asked after Verify refused"); return true }
	if got := p.policy.Consult(&p.conn, &p.request); got != coalesce.ReasonUnverified {
		t.Errorf("refused: %q", got)
	}
	answer, p.conn.TLS = nil, nil
	if got := p.policy.Consult(&p.conn, &p.request); got != coalesce.ReasonUnverified {
		t.Errorf("no state to verify: %q", got)
	}
}

func TestC11_Allow(t *testing.T) {
	p := shareable()
	var asked []coalesce.Candidate
	answer := true
	p.policy.Allow = func(c coalesce.Candidate) bool { asked = append(asked, c); return answer }
	if !p.policy.Consults(&p.conn) {
		t.Error("Consults does not see Allow")
	}
	if got := p.policy.Consult(&p.conn, &p.request); got != coalesce.ReasonShared {
		t.Errorf("allowed: %q", got)
	}
	want := coalesce.Candidate{Host: "b.example.com", Port: 443, ConnHost: "a.example.com", RemoteAddr: remote, TLS: p.conn.TLS}
	if len(asked) != 1 || asked[0] != want {
		t.Errorf("asked %+v", asked)
	}
	answer = false
	if got := p.policy.Consult(&p.conn, &p.request); got != coalesce.ReasonVetoed {
		t.Errorf("vetoed: %q", got)
	}
	asked = nil
	p.judge()
	if asked != nil {
		t.Error("Judge runs Allow")
	}
}

func TestC11_AllowPanicIsPassedOn(t *testing.T) {
	p := shareable()
	p.policy.Allow = func(coalesce.Candidate) bool { panic("boom") }
	defer func() {
		if diff := cmp.Diff("boom", recover()); diff != "" {
			t.Error(diff)
		}
	}()
	p.policy.Consult(&p.conn, &p.request)
	t.Error("the panic was caught")
}

func TestJudgeAllocatesNothing(t *testing.T) {
	for _, change := range []func(*pair){
		func(p *pair) {},
		func(p *pair) { p.origins("https://b.example.com") },
		func(p *pair) { p.request.Host = "192.0.2.9" },
		func(p *pair) { p.conn.Host, p.conn.TLS.ServerName = "192.0.2.9", "" },
		func(p *pair) { p.request.Addrs = nil },
	} {
		p := shareable()
		change(p)
		if n := testing.AllocsPerRun(100, func() { p.judge() }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
