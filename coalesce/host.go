package coalesce

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// maxHost is the longest DNS name in text without the final dot
// (RFC 1035 §2.3.4: 255 octets on the wire).
const maxHost = 253

// The errors of CanonicalHost do not repeat the host: what a caller passes by
// mistake may hold credentials.
var (
	errHostEmpty = errors.New("coalesce: host is empty")
	errHostLong  = errors.New("coalesce: host is longer than 253 bytes")
	errHostLabel = errors.New("coalesce: host has an empty label")
	errHostByte  = errors.New("coalesce: host has a character that no host can have")
	errHostIDNA  = errors.New("coalesce: host is not a valid internationalized name")
	errHostAddr  = errors.New("coalesce: host is not a valid IPv6 address")
)

// CanonicalHost returns host as certificates and DNS spell it, so that equal
// strings are equal hosts: A-labels in lower case without the final dot, or
// the canonical text of an IP address (RFC 5952), an IPv4-mapped IPv6 address
// as IPv4 and a zone kept. An IPv6 literal comes without its brackets.
//
// As in net/http, a host that is all ASCII is not checked against IDNA, so
// names with an underscore pass. A host that is canonical already is returned
// as it is, without allocation.
func CanonicalHost(host string) (string, error) {
	if !isASCII(host) {
		// Punycode takes time in the square of the length: seconds for the
		// host of one redirect of some kilobytes. A code point has at most 4
		// bytes and, unless IDNA ignores it, comes out as one or more.
		if len(host) > 4*maxHost {
			return "", errHostLong
		}
		// idna reads every invalid byte as U+FFFD, which would make one host
		// of several.
		ascii, err := idna.Lookup.ToASCII(host)
		if err != nil || !utf8.ValidString(host) {
			return "", errHostIDNA
		}
		// What follows checks the result as if it had been given: the mapping
		// makes ASCII dots and digits out of other scripts' ones, so it can
		// make an IP address too.
		host = ascii
	}
	if strings.IndexByte(host, ':') >= 0 {
		return canonicalIPv6(host)
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" {
		return "", errHostEmpty
	}
	if len(host) > maxHost {
		return "", errHostLong
	}
	upper := false
	for i := 0; i < len(host); i++ {
		switch c := host[i]; {
		case c == '.':
			if i == 0 || i == len(host)-1 || host[i-1] == '.' {
				return "", errHostLabel
			}
		case 'A' <= c && c <= 'Z':
			upper = true
		case !isRegName(c):
			return "", errHostByte
		}
	}
	if upper {
		host = strings.ToLower(host)
	}
	// A dotted quad has one spelling only (netip refuses leading zeros), so
	// an IPv4 literal is canonical by now.
	return host, nil
}

// canonicalIPv6 is CanonicalHost for hosts with a colon.
func canonicalIPv6(host string) (string, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return "", errHostAddr
	}
	// netip takes any byte in a zone; the host is put into URLs, logs and
	// dial strings, where a slash or a control character has a meaning.
	zone := addr.Zone()
	for i := 0; i < len(zone); i++ {
		if c := zone[i]; !isAlnum(c) && c != '-' && c != '.' && c != '_' && c != '~' && c != ':' {
			return "", errHostByte
		}
	}
	addr = unmap(addr)
	var buf [maxHost]byte
	text := addr.AppendTo(buf[:0])
	if len(text) > maxHost {
		return "", errHostLong
	}
	if string(text) != host {
		return string(text), nil
	}
	return host, nil
}

// WildcardParent returns what follows the left-most label of a canonical DNS
// host: the key under which a wildcard that covers the host is indexed. It is
// not ok where no wildcard can cover the host: IP literals, hosts with fewer
// than two labels after the first (so that *.com is never asked for), and
// hosts whose first label is none that certificates can name.
func WildcardParent(host string) (parent string, ok bool) {
	label, parent, _ := strings.Cut(host, ".")
	if strings.IndexByte(parent, '.') < 0 || !isLabel(label) || endsInNumber(parent) {
		return "", false
	}
	return parent, true
}

// parseAddr returns the address that a canonical host is a literal of,
// unmapped. It allocates nothing for names that can be in DNS.
func parseAddr(host string) (addr netip.Addr, ok bool) {
	if strings.IndexByte(host, ':') < 0 && !endsInNumber(host) {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, false
	}
	return unmap(addr), true
}

// unmap makes an IPv4-mapped IPv6 address an IPv4 one, unless a zone would be
// lost by it.
func unmap(addr netip.Addr) netip.Addr {
	if addr.Zone() != "" {
		return addr
	}
	return addr.Unmap()
}

// isDNSName reports whether a canonical host is a name that a dNSName entry
// can vouch for: labels of letters, digits, hyphens and underscores, none
// empty or led by a hyphen, as crypto/x509 requires before it matches labels.
// Names that end in a number are left out, see endsInNumber.
func isDNSName(host string) bool {
	if len(host) > maxHost || endsInNumber(host) {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

func isLabel(label string) bool {
	if label == "" || label[0] == '-' {
		return false
	}
	for i := 0; i < len(label); i++ {
		if c := label[i]; !isAlnum(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// endsInNumber reports whether the last label is a decimal or hexadecimal
// number. No top-level domain is (RFC 3696 §2), but resolvers in C take such
// hosts for addresses that Go does not see in them: 127.1, 0177.0.0.1, 0x7f.1.
// A dNSName spelled like one must not vouch for an address.
func endsInNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	hex := len(last) >= 2 && last[0] == '0' && last[1]|0x20 == 'x'
	if hex {
		last = last[2:]
	}
	for i := 0; i < len(last); i++ {
		c := last[i]
		if '0' <= c && c <= '9' || hex && 'a' <= c|0x20 && c|0x20 <= 'f' {
			continue
		}
		return false
	}
	return hex || last != ""
}

// isRegName reports whether c may stand in a host that is not an IPv6 literal
// (RFC 3986 §3.2.2, reg-name without percent-encoding). Control characters,
// space, slashes, '@' and '%' may not: they would let one host read as
// another in a URL or a header.
func isRegName(c byte) bool {
	return isAlnum(c) || strings.IndexByte("-._~!$&'()*+,;=", c) >= 0
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
