package pool

import (
	"crypto/sha256"
	"crypto/tls"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

const (
	// shownKept bounds the hosts whose certificates are remembered, and
	// shownNames the names in those certificates together.
	shownKept  = 1024
	shownNames = 128 << 10
)

// shown remembers the certificate that the last dial for a host has met, so
// that hosts which it does not cover do not wait for the next one (P2). A server
// chooses it by the name in the handshake, so the host is what tells which one
// to expect; its address is not.
type shown struct {
	lru   *simplelru.LRU[hostKey, *coalesce.Coverage]
	names int // in all that is kept
}

func newShown() *shown {
	s := new(shown)
	lru, err := simplelru.NewLRU(shownKept, func(_ hostKey, c *coalesce.Coverage) { s.names -= c.Len() })
	if err != nil {
		panic(err) // the size is a positive constant
	}
	s.lru = lru
	return s
}

// add notes that a dial for key has met c; nil says that the connection is of
// no use to other hosts, whatever its certificate.
func (s *shown) add(key hostKey, c *coalesce.Coverage) {
	if old, ok := s.lru.Peek(key); ok {
		s.names -= old.Len()
	}
	s.lru.Add(key, c)
	for s.names += c.Len(); s.names > shownNames; {
		s.lru.RemoveOldest()
	}
}

// expected tells whether the next dial for key is likely to meet a certificate
// that covers host. It is unknown if none was met yet.
func (s *shown) expected(key hostKey, host string) (covers, known bool) {
	c, known := s.lru.Peek(key)
	return known && c != nil && c.Covers(host), known
}

// forOthers returns e's certificate for what shown remembers: nil if the rules
// keep all other hosts off e, whoever they are.
func (p *Pool) forOthers(e *entry) *coalesce.Coverage {
	if e.cert == nil || !e.facts.Verified() || e.facts.ClientCert && !p.cfg.Policy.ShareClientCert {
		return nil
	}
	return e.cert.coverage
}

// coverageOf returns what the certificate that a connection showed covers; nil
// if it is not known. The names of one that is new are read without the lock:
// there may be thousands.
func (p *Pool) coverageOf(state *tls.ConnectionState) *coalesce.Coverage {
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil
	}
	leaf := state.PeerCertificates[0]
	fingerprint := sha256.Sum256(leaf.Raw)
	p.mu.Lock()
	known := p.index.certs[fingerprint]
	p.mu.Unlock()
	if known != nil {
		return known.coverage
	}
	return coalesce.NewCoverage(leaf)
}
