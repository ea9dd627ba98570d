package coalesce

import (
	"crypto/sha256"
	"crypto/x509"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Coverage is what a certificate's subjectAltName names, in the form in which
// hosts are compared with it. It is immutable and safe for concurrent use, and
// one Coverage serves all connections that show the certificate.
type Coverage struct {
	// Sets, since a certificate may name a thousand hosts, and Covers is asked
	// on the way of a request.
	names     map[string]struct{}
	wildcards map[string]struct{} // parents
	addrs     []netip.Addr        // in order

	fingerprint         [sha256.Size]byte
	notBefore, notAfter time.Time
}

// NewCoverage reads the subjectAltName of leaf, which must not be nil and is
// not kept.
//
// Entries that crypto/tls would match in a way that is not safe to share on
// are left out, so Covers never says yes where [x509.Certificate.VerifyHostname]
// says no, and says no to a few hosts more. The common name is never read
// (RFC 9110 §4.3.4): it is free text which name constraints do not bind.
func NewCoverage(leaf *x509.Certificate) *Coverage {
	c := &Coverage{
		names:       make(map[string]struct{}, len(leaf.DNSNames)),
		wildcards:   make(map[string]struct{}),
		fingerprint: sha256.Sum256(leaf.Raw),
		notBefore:   leaf.NotBefore,
		notAfter:    leaf.NotAfter,
	}
	for _, name := range leaf.DNSNames {
		c.addName(name)
	}
	addrSet := make(map[netip.Addr]struct{}, len(leaf.IPAddresses))
	for _, ip := range leaf.IPAddresses {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			continue // neither 4 nor 16 octets (RFC 5280 §4.2.1.6)
		}
		addr = addr.Unmap()
		if _, dup := addrSet[addr]; !dup {
			addrSet[addr] = struct{}{}
			c.addrs = append(c.addrs, addr)
		}
	}
	slices.SortFunc(c.addrs, netip.Addr.Compare)
	return c
}

// addName adds one dNSName entry if it is usable.
func (c *Coverage) addName(name string) {
	// Only ASCII letters are folded (RFC 9525 §6.3, RFC 4343); a name with
	// other characters is refused below. A final dot makes the last label
	// empty and the entry unusable, as it does in crypto/x509: the preferred
	// name syntax of RFC 5280 §4.2.1.6 has none.
	if isASCII(name) {
		name = strings.ToLower(name)
	}
	if parent, ok := strings.CutPrefix(name, "*."); ok {
		// A wildcard is the whole left-most label (RFC 9525 §6.3) and has at
		// least two labels after it. One mis-issued *.com would otherwise
		// make its holder the server of every host that is under com.
		if strings.IndexByte(parent, '.') < 0 || !isDNSName(parent) {
			return
		}
		c.wildcards[parent] = struct{}{}
		return
	}
	// This drops what is no name of a host: the empty string, NUL bytes (the
	// old "bank.example\x00.evil.example"), a lone "*", a '*' within a label
	// or in another label, empty labels, and IP addresses spelled as names,
	// which RFC 9525 §6.4 matches against iPAddress entries alone.
	if isDNSName(name) {
		c.names[name] = struct{}{}
	}
}

// Covers reports whether the certificate names host, which is canonical (C5,
// RFC 9525 §6). It does not allocate, and its cost does not grow with the
// number of names.
func (c *Coverage) Covers(host string) bool {
	if _, ok := c.names[host]; ok {
		return true
	}
	if len(c.wildcards) > 0 {
		// The '*' stands for exactly one label (RFC 9525 §6.3).
		if parent, ok := WildcardParent(host); ok {
			if _, ok := c.wildcards[parent]; ok {
				return true
			}
		}
	}
	if len(c.addrs) > 0 {
		// An address is covered by an equal iPAddress and nothing else
		// (RFC 9525 §6.4). A zoned one is equal to none: an entry has no zone.
		if addr, ok := parseAddr(host); ok {
			_, found := slices.BinarySearchFunc(c.addrs, addr, netip.Addr.Compare)
			return found
		}
	}
	return false
}

// Len returns how many usable entries there are; of a nil Coverage, 0.
func (c *Coverage) Len() int {
	if c == nil {
		return 0
	}
	return len(c.names) + len(c.wildcards) + len(c.addrs)
}

// Names yields the usable dNSName entries without a wildcard, canonical, each
// once and in no order.
func (c *Coverage) Names() iter.Seq[string] { return maps.Keys(c.names) }

// Wildcards yields the parents of the usable wildcard entries, "example.com"
// for "*.example.com", each once and in no order.
func (c *Coverage) Wildcards() iter.Seq[string] { return maps.Keys(c.wildcards) }

// Addrs returns the iPAddress entries in order, IPv4-mapped ones as IPv4.
// Callers must not modify it.
func (c *Coverage) Addrs() []netip.Addr { return c.addrs }

// SANs returns all usable entries as text for display: names, wildcards and
// addresses, each sorted.
func (c *Coverage) SANs() []string {
	sans := make([]string, 0, len(c.names)+len(c.wildcards)+len(c.addrs))
	sans = slices.AppendSeq(sans, maps.Keys(c.names))
	slices.Sort(sans)
	for _, parent := range slices.Sorted(maps.Keys(c.wildcards)) {
		sans = append(sans, "*."+parent)
	}
	for _, addr := range c.addrs {
		sans = append(sans, addr.String())
	}
	return sans
}

// Fingerprint returns the SHA-256 of the certificate. Certificates are told
// apart by it, not by serial number or key, which their issuer may repeat.
func (c *Coverage) Fingerprint() [sha256.Size]byte { return c.fingerprint }

// ValidAt reports whether t is within the certificate's validity (C4,
// RFC 5280 §4.1.2.5; both ends belong to it).
func (c *Coverage) ValidAt(t time.Time) bool {
	return !t.Before(c.notBefore) && !t.After(c.notAfter)
}
