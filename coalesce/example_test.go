package coalesce_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// A policy that keeps the payment service on connections of its own.
func ExamplePolicy() {
	policy := coalesce.Policy{
		Allow: func(c coalesce.Candidate) bool { return !strings.HasPrefix(c.Host, "pay.") },
	}

	// A connection to www.example.com, whose certificate names all of the domain.
	cert := &x509.Certificate{
		DNSNames: []string{"*.example.com"},
		NotAfter: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	conn := &coalesce.Conn{
		Host:       "www.example.com",
		Port:       443,
		RemoteAddr: netip.MustParseAddrPort("192.0.2.1:443"),
		TLS: &tls.ConnectionState{
			NegotiatedProtocol: "h2",
			ServerName:         "www.example.com",
			VerifiedChains:     [][]*x509.Certificate{{cert}},
		},
		Coverage: coalesce.NewCoverage(cert),
	}

	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, r := range []coalesce.Request{
		{Host: "www.example.com", Port: 443},
		{Host: "img.example.com", Port: 443, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		{Host: "api.example.com", Port: 443, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.2")}},
		{Host: "pay.example.com", Port: 443, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		{Host: "www.example.org", Port: 443, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
	} {
		reason := policy.Judge(conn, &r, now)
		if reason == coalesce.ReasonShared {
			reason = policy.Consult(conn, &r)
		}
		fmt.Println(r.Host, reason)
	}
	// Output:
	// www.example.com own
	// img.example.com shared
	// api.example.com address-mismatch
	// pay.example.com vetoed
	// www.example.org not-covered
}
