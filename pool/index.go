package pool

import (
	"cmp"
	"crypto/sha256"
	"iter"
	"net/netip"
	"slices"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// index finds ready connections by what their certificates cover. The names
// of a certificate are entered once, with its first connection, and removed
// with its last; under a certificate, connections are kept by address, so
// that neither many names nor many connections make a look-up longer.
type index struct {
	byAddress bool // whether sharing asks for the host's address

	certs map[[sha256.Size]byte]*certificate
	names postings[string]     // exact names
	wild  postings[string]     // what follows the "*." of wildcards
	addrs postings[netip.Addr] // iPAddress entries

	listed map[hostKey][]*entry // connections by the hosts that their ORIGIN frames list
}

// certificate is a leaf certificate that ready connections have shown.
type certificate struct {
	coverage *coalesce.Coverage
	conns    map[bucket][]*entry // oldest first
	count    int                 // connections in all buckets
}

// bucket groups connections that are alike to a host whose address is known.
// The address is the zero Addr where addresses are not asked for.
type bucket struct {
	partition string
	port      int
	addr      netip.Addr
}

func newIndex(match coalesce.Match) index {
	return index{
		byAddress: match != coalesce.MatchCertificate,
		certs:     make(map[[sha256.Size]byte]*certificate),
		listed:    make(map[hostKey][]*entry),
	}
}

// certificateFor returns the indexed certificate with c's fingerprint, so that
// its names are kept once, or a new one that add will enter.
func (x *index) certificateFor(c *coalesce.Coverage) *certificate {
	if known := x.certs[c.Fingerprint()]; known != nil {
		return known
	}
	return &certificate{coverage: c, conns: make(map[bucket][]*entry)}
}

func (x *index) bucketOf(e *entry) bucket {
	b := bucket{partition: e.key.partition, port: e.key.port}
	if x.byAddress {
		b.addr = e.facts.RemoteAddr.Addr()
	}
	return b
}

// add enters a connection that has become ready.
func (x *index) add(e *entry) {
	c := e.cert
	if c == nil {
		return
	}
	if c.count == 0 {
		x.certs[c.coverage.Fingerprint()] = c
		for name := range c.coverage.Names() {
			x.names.enter(name, c)
		}
		for parent := range c.coverage.Wildcards() {
			x.wild.enter(parent, c)
		}
		for _, addr := range c.coverage.Addrs() {
			x.addrs.enter(addr, c)
		}
	}
	c.count++
	x.list(e, e.listed)
	b := x.bucketOf(e)
	c.conns[b] = insert(c.conns[b], e)
}

// remove undoes add, and what list entered for the connection.
func (x *index) remove(e *entry) {
	c := e.cert
	if c == nil {
		return
	}
	for _, h := range e.listed {
		x.unlist(e, h)
	}
	b := x.bucketOf(e)
	drop(c.conns, b, c.conns[b], e)
	if c.count--; c.count > 0 {
		return
	}
	delete(x.certs, c.coverage.Fingerprint())
	for name := range c.coverage.Names() {
		x.names.leave(name, c)
	}
	for parent := range c.coverage.Wildcards() {
		x.wild.leave(parent, c)
	}
	for _, addr := range c.coverage.Addrs() {
		x.addrs.leave(addr, c)
	}
}

// list enters hosts that an ORIGIN frame on e has listed. A connection whose
// certificate is unknown is never shared and not entered.
func (x *index) list(e *entry, hosts []string) {
	if e.cert == nil {
		return
	}
	for _, h := range hosts {
		key := e.hostKey(h)
		x.listed[key] = insert(x.listed[key], e)
	}
}

// unlist undoes list for one host.
func (x *index) unlist(e *entry, host string) {
	key := e.hostKey(host)
	drop(x.listed, key, x.listed[key], e)
}

// covering yields groups of ready connections that may qualify for a host which
// resolved to addrs: those whose certificate covers it and whose address or
// ORIGIN frames speak for it. A group is ordered oldest first. A connection may
// be in more than one.
func (x *index) covering(key hostKey, addrs []netip.Addr) iter.Seq[[]*entry] {
	return func(yield func([]*entry) bool) {
		if listed := x.listed[key]; len(listed) > 0 && !yield(listed) {
			return
		}
		if len(x.addrs.first) > 0 {
			if ip, err := netip.ParseAddr(key.name); err == nil {
				inBuckets(x, &x.addrs, ip, key, addrs, yield)
				return
			}
		}
		if !inBuckets(x, &x.names, key.name, key, addrs, yield) {
			return
		}
		if len(x.wild.first) == 0 {
			return
		}
		if parent, ok := coalesce.WildcardParent(key.name); ok {
			inBuckets(x, &x.wild, parent, key, addrs, yield)
		}
	}
}

// inBuckets yields the buckets, of the certificates that ps has for k, that fit
// key and addrs; it returns false when yield did.
func inBuckets[K comparable](x *index, ps *postings[K], k K, key hostKey, addrs []netip.Addr, yield func([]*entry) bool) bool {
	first, rest := ps.of(k)
	if first == nil {
		return true
	}
	for i := -1; i < len(rest); i++ {
		c := first
		if i >= 0 {
			c = rest[i]
		}
		if !x.inBucketsOf(c, key, addrs, yield) {
			return false
		}
	}
	return true
}

// inBucketsOf yields the buckets of c that fit key and addrs; it returns false
// when yield did.
func (x *index) inBucketsOf(c *certificate, key hostKey, addrs []netip.Addr, yield func([]*entry) bool) bool {
	b := bucket{partition: key.partition, port: key.port}
	if !x.byAddress {
		conns := c.conns[b]
		return len(conns) == 0 || yield(conns)
	}
	for _, b.addr = range addrs {
		if conns := c.conns[b]; len(conns) > 0 && !yield(conns) {
			return false
		}
	}
	return true
}

// insert puts e into conns, which are ordered oldest first.
func insert(conns []*entry, e *entry) []*entry {
	at, found := slices.BinarySearchFunc(conns, e.id, func(o *entry, id uint64) int { return cmp.Compare(o.id, id) })
	if found {
		return conns
	}
	return slices.Insert(conns, at, e)
}

// drop removes v from the list vs that m holds under k, and the list with its
// last element. Lists are replaced rather than shortened in place, so that one
// that is being iterated stays whole.
func drop[K comparable, V comparable](m map[K][]V, k K, vs []V, v V) {
	i := slices.Index(vs, v)
	switch {
	case i < 0:
	case len(vs) == 1:
		delete(m, k)
	default:
		m[k] = slices.Concat(vs[:i], vs[i+1:])
	}
}
