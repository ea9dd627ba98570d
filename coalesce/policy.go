package coalesce

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"time"
)

// Match says which evidence, beside a certificate that covers the host, lets
// a connection carry that host's requests.
type Match int

const (
	// MatchAddress shares when the host resolves to the address that the
	// connection is connected to (RFC 9113 §9.1.1). It is the default.
	MatchAddress Match = iota
	// MatchOrigin shares when the host resolves to the connection's address,
	// or when an ORIGIN frame on the connection lists it (RFC 8336 §2.4); a
	// listed host is not looked up, and need not be in DNS at all.
	MatchOrigin
	// MatchCertificate shares on the certificate alone. It is for fleets in
	// which every server answers for every name of its certificate.
	MatchCertificate
	// MatchNever does not share: every host has its own connections.
	MatchNever
)

// String returns the word that ParseMatch accepts for m.
func (m Match) String() string {
	switch m {
	case MatchAddress:
		return "address"
	case MatchOrigin:
		return "origin"
	case MatchCertificate:
		return "certificate"
	case MatchNever:
		return "never"
	}
	return fmt.Sprintf("Match(%d)", int(m))
}

// ParseMatch returns the Match that String writes as s.
func ParseMatch(s string) (Match, error) {
	for m := MatchAddress; m <= MatchNever; m++ {
		if m.String() == s {
			return m, nil
		}
	}
	return 0, fmt.Errorf("coalesce: unknown match %q: want address, origin, certificate or never", s)
}

const (
	defaultJoinWait   = 300 * time.Millisecond
	defaultAddressTTL = 5 * time.Minute
)

// Policy says when connections are shared. The zero value is safe: a host
// shares a connection whose certificate covers it and whose address it
// resolves to.
type Policy struct {
	// Match is the evidence required beside the certificate. A value that is
	// none of the constants shares nothing.
	Match Match

	// Allow, if not nil, may veto a sharing that every other rule admits; it
	// is asked last. It is called without locks held, possibly by several
	// goroutines at once and more than once for the same pair, and its answer
	// must not depend on the request. It must return soon: the request that
	// needs the answer waits for it.
	Allow func(Candidate) bool

	// ShareClientCert permits sharing connections on which a client
	// certificate was sent, or may have been sent without this module seeing
	// it (a connection from DialTLSContext, a resumed session). What such a
	// dial function verifies on its own account, pins for one, is not asked
	// again for the host that shares. Without ShareClientCert
	// the identity shown to one host never vouches for a request to another.
	ShareClientCert bool

	// JoinWait is the longest time that a request waits for the handshake of
	// another host's connection, which it may then share, before it dials for
	// itself. Zero means 300 ms; negative means not to wait.
	JoinWait time.Duration

	// AddressTTL is how long a DNS answer justifies sharing. When it is over,
	// the host is looked up again in the background and leaves the connection
	// if it has moved away. Zero means 5 minutes. Negative means that a host
	// stays for as long as the connection lives; a look-up that is more than 5
	// minutes old puts it on no other connection.
	AddressTTL time.Duration
}

// JoinWaitOrDefault returns JoinWait with its default applied; it is negative
// when requests are not to wait.
func (p *Policy) JoinWaitOrDefault() time.Duration {
	if p.JoinWait == 0 {
		return defaultJoinWait
	}
	return p.JoinWait
}

// AddressTTLOrDefault returns AddressTTL with its default applied; it is
// negative when DNS answers do not expire.
func (p *Policy) AddressTTLOrDefault() time.Duration {
	if p.AddressTTL == 0 {
		return defaultAddressTTL
	}
	return p.AddressTTL
}

// Candidate is a sharing that the rules admit, as Policy.Allow sees it.
type Candidate struct {
	Host       string               // the host that asks: A-labels, lower case
	Port       int                  // its port, and the connection's
	ConnHost   string               // the host that the connection was dialed for
	RemoteAddr netip.AddrPort       // the address that the connection is connected to
	TLS        *tls.ConnectionState // the connection's; must not be modified
}
