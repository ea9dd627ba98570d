package coalesce

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"time"
)

// Conn is what the rules need to know of an open connection.
type Conn struct {
	Host       string // that it was dialed for, canonical
	Port       int
	Partition  string
	RemoteAddr netip.AddrPort       // the peer of the socket; the zero value if it is unknown
	TLS        *tls.ConnectionState // after the handshake; nil if it is unknown
	Coverage   *Coverage            // of the leaf in TLS

	// Verify is the TLSClientConfig.VerifyConnection that the connection was
	// dialed with; nil if there was none.
	Verify func(tls.ConnectionState) error

	ClientCert bool       // a client certificate was sent, or may have been
	Draining   bool       // GOAWAY seen, past MaxAge, or closed
	HostsFull  bool       // MaxHostsPerConn hosts share it: no further host may
	Origins    *OriginSet // nil is as good as one that has seen no frame
}

// Request is one host's wish to use a connection.
type Request struct {
	Host      string // canonical
	Port      int
	Partition string
	Addrs     []netip.Addr // all that the host resolves to; nil: not looked up
	Own       bool         // own connections only: WithoutCoalescing, or a Host header that names another host (C12)

	// Misdirected tells that the host was answered 421 on the connection that
	// is asked about, or by a server with its certificate and address (C10).
	Misdirected bool

	// Said is what Consult has returned for the host and the connection that
	// is asked about (C6, C11); empty if it was not called.
	Said Reason
}

// Judge applies the rules to r. It returns ReasonOwn for a connection that was
// dialed for the host, ReasonShared for one that may carry its requests, and
// otherwise the Reason of the first rule that fails. Where Consults is true and
// r.Said is empty, ReasonShared is subject to what Consult says.
//
// Judge is a function of its arguments alone: it runs no code of the caller's,
// keeps nothing and does not allocate. It does not count streams: whether the
// connection has one left is for the caller to know. It must not run while
// c.Origins is changed.
func (p *Policy) Judge(c *Conn, r *Request, now time.Time) Reason {
	if r.Host == c.Host && r.Port == c.Port && r.Partition == c.Partition {
		// The connection was dialed for this very host; who answers on it was
		// decided by the dial, so only its state matters (C2).
		if c.Draining {
			return ReasonDraining
		}
		return ReasonOwn
	}
	if reason := p.permits(c, r); reason != ReasonShared {
		return reason
	}
	if !c.Verified() {
		return ReasonUnverified
	}
	// C4: crypto/tls looked at the clock once, at the handshake. A connection
	// that outlives its certificate must not gain hosts by it: the name may
	// have passed to somebody else, who got a new one.
	if !c.Coverage.ValidAt(now) {
		return ReasonExpired
	}
	// C5, RFC 9113 §9.1.1, RFC 9110 §4.3.3: the certificate must name the
	// host, or any server could take any host's requests.
	if !c.Coverage.Covers(r.Host) {
		return ReasonNotCovered
	}
	// C6, see Consult.
	if r.Said == ReasonUnverified {
		return ReasonUnverified
	}
	// C7: the server authenticated the whole connection as one client. On it
	// a request to another host would act with an identity that was shown to
	// the first host only (a confused deputy).
	if c.ClientCert && !p.ShareClientCert {
		return ReasonClientCertificate
	}
	// C8, RFC 8336 §2.4: a server that lists its origins has said for which
	// ones it does not answer. Under every Match, MatchCertificate too: the
	// list can only narrow what the certificate allows.
	listed := c.Origins != nil && c.Origins.Contains(r.Host, r.Port)
	if c.Origins != nil && c.Origins.Seen() && !listed {
		return ReasonNotInOriginSet
	}
	if !p.evident(c, r, listed) {
		return ReasonAddressMismatch
	}
	// C10, RFC 9110 §7.4: the server said that it does not answer for the
	// host. Asking again costs a round trip each time.
	if r.Misdirected {
		return ReasonMisdirected
	}
	// C11, see Consult.
	if r.Said == ReasonVetoed {
		return ReasonVetoed
	}
	return ReasonShared
}

// permits applies what does not depend on the certificate: Match and Own, C1
// and C2. It returns ReasonShared if nothing stands against sharing.
func (p *Policy) permits(c *Conn, r *Request) Reason {
	switch {
	// A Match that is none of the constants comes from a mistake or from a
	// newer version's configuration; sharing on it would be a guess. C12: a
	// request whose Host header differs from its URL would reach, on a shared
	// connection, a server that nothing vouches for under either name.
	case p.Match < MatchAddress || p.Match >= MatchNever || r.Own:
		return ReasonDisabled
	// C1: the port is a part of the origin (RFC 6454 §4). A certificate does
	// not name it, so another service of the same machine, perhaps another
	// user's, would pass every other rule.
	case r.Port != c.Port:
		return ReasonPort
	// C1: requests on one connection can be linked to each other by the
	// server. Partitions are there to prevent that.
	case r.Partition != c.Partition:
		return ReasonPartition
	// C2, RFC 9113 §6.8: streams opened after a GOAWAY are lost.
	case c.Draining:
		return ReasonDraining
	// C2: one connection that fails takes down all hosts on it, hence the
	// limit.
	case c.HostsFull:
		return ReasonFull
	}
	return ReasonShared
}

// Verified reports whether crypto/tls authenticated the server, under the name
// that the connection was dialed for (C3), and whether it speaks HTTP/2 (C1).
// The names in a certificate are worth as much as the chain above it: one that
// InsecureSkipVerify accepted can name any host.
func (c *Conn) Verified() bool {
	if c.TLS == nil || c.Coverage == nil || len(c.TLS.VerifiedChains) == 0 {
		return false
	}
	// RFC 9113 §3.2: HTTP/2 over TLS is what ALPN selected, not what the
	// client hoped for.
	if c.TLS.NegotiatedProtocol != "h2" {
		return false
	}
	// A client's ServerName is the name that crypto/tls verified, without its
	// final dots. A ServerName fixed in TLSClientConfig makes every dial
	// verify that one name: the caller trusts it for the addresses dialed,
	// which says nothing of the certificate's other names.
	if _, ok := parseAddr(c.Host); !ok {
		return equalFold(strings.TrimSuffix(c.TLS.ServerName, "."), c.Host)
	}
	// For an IP literal, which SNI cannot carry (RFC 6066 §3), crypto/tls
	// leaves ServerName empty and does not tell which address it verified.
	// That the certificate has the address comes to the same.
	return c.TLS.ServerName == "" && c.Coverage.Covers(c.Host)
}

// equalFold reports whether s equals the canonical host, letters of s folded
// to lower case. strings.EqualFold would fold Unicode, where U+212A, the Kelvin
// sign, equals k.
func equalFold(s, host string) bool {
	if len(s) != len(host) {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != host[i] {
			return false
		}
	}
	return true
}

// Consults reports whether Consult would run code of the caller's for c.
func (p *Policy) Consults(c *Conn) bool {
	return c.Verify != nil || p.Allow != nil
}

// Consult applies the rules that run the caller's code to a sharing that Judge
// admits: C6 and C11. It must be called without locks held. It returns
// ReasonShared, ReasonUnverified or ReasonVetoed. A panic of the caller's code
// is passed on.
func (p *Policy) Consult(c *Conn, r *Request) Reason {
	// C6: VerifyConnection is where callers pin keys and check revocation or
	// transparency, by host. It has accepted the connection for its own host
	// only; without asking again, sharing would go around the pins of the
	// new one. RFC 9113 §9.1.1 wants the checks of a new connection made.
	if c.Verify != nil {
		if c.TLS == nil {
			return ReasonUnverified
		}
		state := *c.TLS
		state.ServerName = r.Host
		if c.Verify(state) != nil {
			return ReasonUnverified
		}
	}
	// C11.
	if p.Allow != nil && !p.Allow(Candidate{
		Host:       r.Host,
		Port:       r.Port,
		ConnHost:   c.Host,
		RemoteAddr: c.RemoteAddr,
		TLS:        c.TLS,
	}) {
		return ReasonVetoed
	}
	return ReasonShared
}
