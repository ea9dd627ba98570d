package coalesce

import "net/netip"

// evident reports whether there is the evidence beside the certificate that
// Match asks for (C9).
func (p *Policy) evident(c *Conn, r *Request, listed bool) bool {
	switch p.Match {
	case MatchCertificate:
		// Nothing more. Whoever holds the key of a certificate that names the
		// host gets the host's requests without being on the path to it.
		return true
	case MatchOrigin:
		// RFC 8336 §2.4 lets an origin set replace DNS. Its §4 warns of what
		// MatchCertificate risks, limited here to servers that list the host.
		return listed || sameAddr(c, r)
	default:
		return sameAddr(c, r)
	}
}

// sameAddr reports whether the host resolves to the address that the
// connection is connected to (RFC 9113 §9.1.1, RFC 9110 §4.3.3). A stolen or
// mis-issued certificate is then of use only to those who also control the
// host's DNS or the path to its address.
//
// The socket's peer is compared, not what the other host resolves to: two
// hosts may have one address in common and the connection lead to another.
func sameAddr(c *Conn, r *Request) bool {
	remote := c.RemoteAddr.Addr()
	if !remote.IsValid() {
		return false // an unknown peer equals no address, an unset one neither
	}
	remote = CanonicalAddr(remote)
	for _, addr := range r.Addrs {
		if CanonicalAddr(addr) == remote {
			return true
		}
	}
	// An IP literal is its own address, looked up or not.
	literal, ok := parseAddr(r.Host)
	return ok && literal == remote
}

// CanonicalAddr returns addr in the form in which addresses are compared: an
// IPv4-mapped IPv6 address as IPv4, and without the zone where the address is
// a global one, which means the same on every link (RFC 4007 §6). The socket
// of such an address reports none.
//
// Other zones stay: fe80::1 on two links is two machines. So does one on an
// IPv4-mapped address, which means nothing and should not be guessed at.
func CanonicalAddr(addr netip.Addr) netip.Addr {
	if addr.Zone() == "" {
		return addr.Unmap()
	}
	b := addr.As16()
	siteLocal := b[0] == 0xfe && b[1]&0xc0 == 0xc0 // fec0::/10, deprecated by RFC 3879
	if addr.IsGlobalUnicast() && !addr.Is4In6() && !siteLocal {
		return addr.WithZone("")
	}
	return addr
}
