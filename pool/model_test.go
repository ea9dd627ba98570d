package pool_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// TestModel does random things to a pool and looks after each whether anything
// is as it must not be: a limit exceeded, a request that waits without need, a
// connection lost, a host where the rules do not let it be, an index that
// differs from what there is.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cfg := modelConfig{
			match:    rapid.SampledFrom([]coalesce.Match{coalesce.MatchAddress, coalesce.MatchAddress, coalesce.MatchOrigin, coalesce.MatchCertificate, coalesce.MatchNever}).Draw(rt, "match"),
			joinWait: rapid.SampledFrom([]time.Duration{0, 0, -1}).Draw(rt, "joinWait"),
			ttl:      rapid.SampledFrom([]time.Duration{0, -1, time.Minute}).Draw(rt, "addressTTL"),
			memory:   rapid.SampledFrom([]time.Duration{-1, -1, time.Minute, 10 * time.Minute}).Draw(rt, "misdirectedTTL"),
			allow:    rapid.Bool().Draw(rt, "allow"),
			resolve:  rapid.IntRange(0, 9).Draw(rt, "resolve") > 0,
			limits:   drawLimits(rt, "limits"),
		}
		n := rapid.IntRange(1, 120).Draw(rt, "n") // a slice of free length is short
		steps := rapid.SliceOfN(rapid.Custom(drawStep), n, n).Draw(rt, "steps")
		var err error
		synctest.Test(t, func(*testing.T) { err = runModel(cfg, steps) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

type modelConfig struct {
	match                 coalesce.Match
	joinWait, ttl, memory time.Duration
	allow, resolve        bool
	limits                pool.Limits
}

func drawLimits(rt *rapid.T, label string) pool.Limits {
	few := rapid.SampledFrom([]int{0, 0, 1, 2, 3})
	return pool.Limits{
		MaxConns:          few.Draw(rt, label),
		MaxConnsPerHost:   few.Draw(rt, label),
		MaxIdleConns:      few.Draw(rt, label),
		MaxStreamsPerConn: few.Draw(rt, label),
		MaxHostsPerConn:   few.Draw(rt, label),
		IdleTimeout:       rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(rt, label),
		MaxAge:            rapid.SampledFrom([]time.Duration{0, 0, 2 * time.Minute}).Draw(rt, label),
	}
}

// model is what the pool's user and its servers know.
type model struct {
	*rig
	cfg    modelConfig
	rec    *recorder
	limits pool.Limits
	now    pool.Limits // guarded by rig.mu: for dials
	hosts  []string
	certs  []*x509.Certificate

	calls    []*call // not yet ended
	seen     map[*call]bool
	answers  map[string][]netip.Addr // all addresses that a host ever had
	facts    map[*fakeConn]*connFacts
	taught   map[string]time.Time // 421s, until when
	mostSeen int                  // highest MaxHostsPerConn so far; 0: none
	lastID   uint64
}

func runModel(cfg modelConfig, steps []step) (err error) {
	m := newModel(cfg)
	defer func() {
		m.Close()
		if err == nil {
			err = m.atEnd()
		}
	}()
	for i, s := range steps {
		m.do(s)
		if err := m.verify(); err != nil {
			return fmt.Errorf("after step %d, %v: %w", i, s, err)
		}
	}
	return m.settle()
}

func newModel(cfg modelConfig) *model {
	m := &model{
		cfg:     cfg,
		limits:  cfg.limits,
		now:     cfg.limits,
		hosts:   names("h%d.test", 6),
		seen:    make(map[*call]bool),
		answers: make(map[string][]netip.Addr),
		facts:   make(map[*fakeConn]*connFacts),
		taught:  make(map[string]time.Time),
		rec:     &recorder{},
	}
	m.noteHosts()
	p := coalesce.Policy{Match: cfg.match, JoinWait: cfg.joinWait, AddressTTL: cfg.ttl}
	if cfg.allow {
		p.Allow = func(c coalesce.Candidate) bool { return !m.vetoes(c.Host, c.ConnHost) }
	}
	m.rig = newRig(m.rec, policy(p), limits(cfg.limits), misdirectedTTL(cfg.memory), func(c *pool.Config) {
		if !cfg.resolve {
			c.Resolve = nil
		}
	})
	m.held = true
	m.maxStreams = 2
	h := m.hosts
	m.certs = []*x509.Certificate{leaf(h[0], h[1], h[2], h[3]), leaf("*.test"), leaf(h[2], h[3], h[4], h[5]), leaf(h...)}
	for i, name := range h {
		m.rig.certs[name] = m.certs[[]int{0, 0, 0, 2, 2, 3}[i]]
		m.setDNS(name, addr1)
	}
	m.setDNS(h[5], addr2)
	m.onDial = m.dialing
	m.shape = m.connected
	return m
}

func (m *model) vetoes(host, connHost string) bool {
	return host == m.hosts[1] && connHost == m.hosts[0]
}

func (m *model) setDNS(host string, addrs ...netip.Addr) {
	m.dns[host] = addrs
	m.answers[host] = append(m.answers[host], addrs...)
}

func (m *model) noteHosts() {
	if n := m.limits.MaxHostsPerConn; n == 0 || m.mostSeen < 0 {
		m.mostSeen = -1
	} else {
		m.mostSeen = max(m.mostSeen, n)
	}
}

// dialing counts connections when one more is dialed.
func (m *model) dialing(context.Context, *fakeDial) {
	m.rig.mu.Lock()
	defer m.rig.mu.Unlock()
	n := 0
	for _, d := range m.dials {
		if !d.ended {
			n++
		}
	}
	for _, c := range m.conns {
		c.mu.Lock()
		if !c.gone {
			n++
		}
		c.mu.Unlock()
	}
	if most := m.now.MaxConns; most > 0 && n > most {
		m.rec.Errorf("P5: connection %d is dialed, MaxConns is %d", n, most)
	}
}

func (m *model) connected(target pool.Target, d *pool.Dialed) {
	remote := d.RemoteAddr.Addr()
	if !m.cfg.resolve {
		remote = addr1
		d.RemoteAddr = netip.AddrPortFrom(remote, uint16(target.Port))
	} else if len(target.Addrs) == 0 {
		m.rec.Errorf("P8: %s is dialed without addresses", target.Host)
	}
	f := &connFacts{
		host:     target.Host,
		remote:   remote,
		origins:  map[string]bool{target.Host: true},
		excluded: make(map[string]bool),
		proven:   make(map[string]bool),
	}
	if d.TLS != nil {
		f.cert = d.TLS.PeerCertificates[0]
	}
	m.rig.mu.Lock()
	defer m.rig.mu.Unlock()
	m.facts[d.Conn.(*fakeConn)] = f
}

func (m *model) factsOf(c *fakeConn) *connFacts {
	m.rig.mu.Lock()
	defer m.rig.mu.Unlock()
	return m.facts[c]
}
