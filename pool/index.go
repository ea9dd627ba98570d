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
	names map[string][]*certificate     // exact names
	wild  map[string][]*certificate     // what follows the "*." of wildcards
	addrs map[netip.Addr][]*certificate // iPAddress entries

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
		names:     make(map[string][]*certificate),
		wild:      make(map[string][]*certificate),
		addrs:     make(map[netip.Addr][]*certificate),
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
		enter(x.names, c.coverage.Names(), c)
		enter(x.wild, c.coverage.Wildcards(), c)
		enter(x.addrs, c.coverage.Addrs(), c)
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
	leave(x.names, c.coverage.Names(), c)
	leave(x.wild, c.coverage.Wildcards(), c)
	leave(x.addrs, c.coverage.Addrs(), c)
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
		if len(x.addrs) > 0 {
			if ip, err := netip.ParseAddr(key.name); err == nil {
				x.inBuckets(x.addrs[ip], key, addrs, yield)
				return
			}
		}
		if !x.inBuckets(x.names[key.name], key, addrs, yield) {
			return
		}
		if parent, ok := coalesce.WildcardParent(key.name); ok {
			x.inBuckets(x.wild[parent], key, addrs, yield)
		}
	}
}

// inBuckets yields the buckets of certs that fit key and addrs; it returns false
// when yield did.
func (x *index) inBuckets(certs []*certificate, key hostKey, addrs []netip.Addr, yield func([]*entry) bool) bool {
	for _, c := range certs {
		b := bucket{partition: key.partition, port: key.port}
		if !x.byAddress {
			if conns := c.conns[b]; len(conns) > 0 && !yield(conns) {
				return false
			}
			continue
		}
		for _, b.addr = range addrs {
			if conns := c.conns[b]; len(conns) > 0 && !yield(conns) {
				return false
			}
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

func enter[K comparable](m map[K][]*certificate, keys []K, c *certificate) {
	for _, k := range keys {
		m[k] = append(m[k], c)
	}
}

func leave[K comparable](m map[K][]*certificate, keys []K, c *certificate) {
	for _, k := range keys {
		drop(m, k, m[k], c)
	}
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
