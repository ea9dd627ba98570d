package coalesce

import (
	"net"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultPort = 443

	// maxOrigins is how many origins a set holds, the connection's own among
	// them (O4). A server can send ORIGIN frames for ever; without a cap the
	// set is memory that it holds in every client (RFC 8336 §4).
	maxOrigins = 128
)

type origin struct {
	host string
	port int
}

// OriginSet is what the ORIGIN frames on one connection list (RFC 8336 §2.3).
// Its zero value has seen no frame. It is not safe for concurrent use.
type OriginSet struct {
	own     origin
	set     map[origin]struct{} // nil until the first frame
	dropped int
}

// Init tells the set the connection's own origin, which the first frame puts
// into it (O3). The host is canonical.
func (s *OriginSet) Init(host string, port int) {
	s.own = origin{host, port}
}

// Add takes the entries of one ORIGIN frame, which may be none: even an empty
// frame makes the set a fence (RFC 8336 §2.3). Entries that are no origin are
// skipped (O2). Origins beyond 128, the connection's own included, are dropped
// and counted (O4); dropped is how many entries of the frame had been left out
// before, which are counted with them. Add returns the hosts newly listed at
// the connection's port, for which the connection may have become usable.
//
// How much text the set is given in all is for whoever reads the frames to
// bound: entries that add nothing cost time, but nothing of the 128.
func (s *OriginSet) Add(entries []string, dropped int) (added []string) {
	if s.set == nil {
		s.set = map[origin]struct{}{s.own: {}}
	}
	s.dropped += dropped
	for _, entry := range entries {
		host, port, ok := ParseOrigin(entry)
		if !ok || s.Contains(host, port) {
			continue
		}
		if len(s.set) >= maxOrigins {
			s.dropped++
			continue
		}
		// The entry may be a part of a whole frame's text.
		host = strings.Clone(host)
		s.set[origin{host, port}] = struct{}{}
		if port == s.own.port {
			added = append(added, host)
		}
	}
	return added
}

// Seen reports whether a frame was added, even an empty one. From then on the
// set is a fence (C8).
func (s *OriginSet) Seen() bool { return s.set != nil }

// Contains reports whether the set holds the https origin of host and port.
// The host is canonical. It does not allocate.
func (s *OriginSet) Contains(host string, port int) bool {
	_, ok := s.set[origin{host, port}]
	return ok
}

// Remove takes an origin out of the set: a 421 proves the listing wrong
// (RFC 8336 §2.3). A later frame may list it again.
func (s *OriginSet) Remove(host string, port int) {
	delete(s.set, origin{host, port})
}

// ProperSubsetOf reports whether t has every origin of s and others besides
// (O6). Sets that have seen no frame are not compared: such a connection is
// usable for whatever the other rules allow. It does not allocate.
func (s *OriginSet) ProperSubsetOf(t *OriginSet) bool {
	if !s.Seen() || !t.Seen() || len(s.set) >= len(t.set) {
		return false
	}
	for o := range s.set {
		if _, ok := t.set[o]; !ok {
			return false
		}
	}
	return true
}

// List returns the origins as "https://host[:port]", sorted, for display.
func (s *OriginSet) List() []string {
	list := make([]string, 0, len(s.set))
	for o := range s.set {
		list = append(list, o.String())
	}
	slices.Sort(list)
	return list
}

// Dropped returns how many entries were left out because of a cap (O4): by Add,
// when the set held 128 origins, and before Add.
func (s *OriginSet) Dropped() int { return s.dropped }

// String writes the origin as RFC 6454 §6.2 does.
func (o origin) String() string {
	host := o.host
	if o.port != defaultPort {
		return "https://" + net.JoinHostPort(host, strconv.Itoa(o.port))
	}
	if strings.IndexByte(host, ':') >= 0 {
		host = "[" + host + "]"
	}
	return "https://" + host
}

// ParseOrigin parses the ASCII serialization of an https origin (O2,
// RFC 8336 §2.1, RFC 6454 §6.2): "https://host" or "https://host:port" and
// nothing else. It returns the host in canonical form, in which neither case
// nor a final dot matters; the port is 443 where none is written.
//
// A path, a query, user information, a wildcard, another scheme or another
// spelling of it is not an origin. Were any of them skipped over instead,
// "https://bank.example@evil.example" would list a host that its text does
// not show.
func ParseOrigin(s string) (host string, port int, ok bool) {
	rest, ok := strings.CutPrefix(s, "https://")
	if !ok || !isASCII(rest) {
		return "", 0, false
	}
	bracketed := strings.HasPrefix(rest, "[")
	port = defaultPort
	if bracketed {
		host, rest, ok = strings.Cut(rest[1:], "]")
		if !ok {
			return "", 0, false
		}
	} else {
		i := strings.IndexByte(rest, ':')
		if i < 0 {
			i = len(rest)
		}
		host, rest = rest[:i], rest[i:]
	}
	if rest != "" {
		if port, ok = parsePort(rest); !ok {
			return "", 0, false
		}
	}
	host, err := CanonicalHost(host)
	if err != nil {
		return "", 0, false
	}
	if addr, isAddr := parseAddr(host); isAddr {
		// A zone means something on one machine only (RFC 4007 §6). Brackets
		// are for IPv6, so an IPv4-mapped address in them is no serialization.
		if addr.Zone() != "" || addr.Is6() != bracketed {
			return "", 0, false
		}
	} else if bracketed || !isDNSName(host) {
		return "", 0, false
	}
	return host, port, true
}

// parsePort parses ":port": decimal, without sign or leading zero.
func parsePort(s string) (port int, ok bool) {
	if len(s) < 2 || len(s) > 6 || s[0] != ':' || s[1] == '0' {
		return 0, false
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		port = port*10 + int(s[i]-'0')
	}
	return port, port <= 65535
}
