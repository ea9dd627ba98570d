package pool_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// recorder keeps what the rig complains of.
type recorder struct {
	testing.TB
	mu  sync.Mutex
	err error
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.Join(r.err, fmt.Errorf(format, args...))
}

func (r *recorder) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

type connFacts struct {
	host     string
	remote   netip.Addr
	cert     *x509.Certificate
	fenced   bool
	origins  map[string]bool
	excluded map[string]bool
	proven   map[string]bool
	told     bool // its end
}

// key is under what a 421 is remembered.
func (f *connFacts) key(c *call) string {
	return fmt.Sprint(c.Host, c.Partition, f.remote, string(f.cert.Raw))
}

// verify looks at everything after a step.
func (m *model) verify() error {
	synctest.Wait()
	for _, c := range slices.Clone(m.calls) {
		if !c.returned() {
			continue
		}
		if c.err != nil {
			m.calls = slices.DeleteFunc(m.calls, func(o *call) bool { return o == c })
		} else if !m.seen[c] {
			m.seen[c] = true
			m.judge(c)
		}
	}
	if err := m.rec.failure(); err != nil {
		return err
	}
	if err := m.CheckInvariants(m.hosts...); err != nil {
		return err
	}
	s, open := m.Stats(), m.open()
	served, streams := len(m.served()), 0
	for _, c := range m.conns {
		streams += c.inUse()
	}
	if s.Streams != served || streams != served || s.Waiting != len(m.calls)-served {
		return fmt.Errorf("%d requests have a stream and %d wait; the servers see %d; %+v", served, len(m.calls)-served, streams, s)
	}
	infos := m.Conns()
	if s.Conns != len(open) || len(infos) != len(open) {
		return fmt.Errorf("%d connections are open; %+v", len(open), s)
	}
	for _, info := range infos {
		if m.mostSeen > 0 && len(info.Hosts) > m.mostSeen {
			return fmt.Errorf("C2: hosts %q on connection %d", info.Hosts, info.ID)
		}
	}
	return nil
}

// judge looks at where a request was put, by the rules of the user's manual.
func (m *model) judge(c *call) {
	f := m.factsOf(c.conn())
	complain := func(rule string) {
		m.rec.Errorf("%s: %s (partition %q) is on connection %d of %s", rule, c.Host, c.Partition, c.lease.ID(), f.host)
	}
	if c.lease.ID() == c.Avoid {
		complain("M1")
	}
	if !c.lease.Shared() {
		if f.host != c.Host {
			complain("own")
		}
		return
	}
	covered := c.Host == f.host
	for _, n := range f.cert.DNSNames {
		// No host of the model is covered by the wildcard: it has one label.
		covered = covered || n == c.Host
	}
	listed := f.origins[c.Host]
	switch {
	case c.Own || m.cfg.match == coalesce.MatchNever:
		complain("C9 disabled")
	case !covered:
		complain("C5")
	case f.fenced && !listed:
		complain("C8")
	case f.excluded[c.Host] || time.Now().Before(m.taught[f.key(c)]):
		complain("C10")
	case m.cfg.allow && m.vetoes(c.Host, f.host):
		complain("C11")
	case c.ProvenOnly && !f.proven[c.Host]:
		complain("M6")
	case m.cfg.match == coalesce.MatchCertificate || m.cfg.match == coalesce.MatchOrigin && f.fenced && listed:
	case !slices.Contains(m.answers[c.Host], f.remote):
		complain("C9")
	}
}

// settle lifts all obstacles and demands that every request is then served.
func (m *model) settle() error {
	m.setLimits(pool.Limits{})
	m.set(func() { m.closing, m.lookupTime, m.lookupErr = 0, 0, nil })
	for round := 0; len(m.calls) > 0; round++ {
		if round == 100 {
			return fmt.Errorf("%d requests are never served: %+v", len(m.calls), m.Stats())
		}
		for _, c := range m.open() {
			c.setRefuse(false)
			c.settings(5)
		}
		for _, d := range m.heldDials() {
			d.finish(nil)
		}
		time.Sleep(500 * time.Millisecond)
		if err := m.verify(); err != nil {
			return fmt.Errorf("in the end: %w", err)
		}
		for _, c := range m.served() {
			m.end(c)
		}
	}
	return nil
}

// atEnd looks at what a closed pool has left.
func (m *model) atEnd() error {
	for _, c := range m.calls {
		<-c.done
		if c.err == nil {
			c.end()
		}
	}
	synctest.Wait()
	for _, c := range m.conns {
		if !c.isClosed() || c.closes > 1 {
			return fmt.Errorf("a connection of %s was closed %d times", c.host, c.closes)
		}
	}
	if got := m.Sizes(); got != (pool.Sizes{}) {
		return fmt.Errorf("a closed pool holds %+v", got)
	}
	return m.CheckInvariants()
}
