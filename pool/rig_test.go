package pool_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	addr1 = netip.MustParseAddr("192.0.2.1")
	addr2 = netip.MustParseAddr("192.0.2.2")
	addr3 = netip.MustParseAddr("192.0.2.3")

	errRefused = errors.New("connection refused")
	errNoHost  = errors.New("no such host")
)

// rig is a pool on fakes: a network whose servers and resolver do what its
// fields say. A test changes them between its steps.
type rig struct {
	*pool.Pool
	t testing.TB

	mu      sync.Mutex // guards what follows while the pool's goroutines run
	dns     map[string][]netip.Addr
	certs   map[string]*x509.Certificate // what a server shows for a host
	lookups map[string]int
	looking int // look-ups under way
	dials   []*fakeDial
	conns   []*fakeConn

	handshake  time.Duration    // that a dial takes, unless held
	held       bool             // dials wait for fakeDial.finish
	dialErr    map[string]error // of the dials of a host
	lookupTime time.Duration
	lookupErr  error
	maxStreams uint32                                  // in SETTINGS, sent just before the dial returns
	noSettings bool                                    // they are not sent
	closing    time.Duration                           // that Conn.Close takes
	shape      func(pool.Target, *pool.Dialed)         // has the last word on what a dial returns
	resolve    func(host string) ([]netip.Addr, error) // instead of dns
	onDial     func(ctx context.Context, d *fakeDial)  // before all else
	reserve    func(c *fakeConn, granted bool) bool    // has the last word on Reserve
}

type option func(*pool.Config)

func limits(l pool.Limits) option { return func(c *pool.Config) { c.Limits = l } }

func policy(p coalesce.Policy) option { return func(c *pool.Config) { c.Policy = p } }

func misdirectedTTL(d time.Duration) option { return func(c *pool.Config) { c.MisdirectedTTL = d } }

// newRig returns a rig whose dials take 50 ms and whose servers take 100
// streams. Its pool is closed with the test.
func newRig(t testing.TB, opts ...option) *rig {
	r := &rig{
		t:          t,
		dns:        make(map[string][]netip.Addr),
		certs:      make(map[string]*x509.Certificate),
		lookups:    make(map[string]int),
		dialErr:    make(map[string]error),
		handshake:  50 * time.Millisecond,
		maxStreams: 100,
	}
	cfg := pool.Config{MisdirectedTTL: 10 * time.Minute, Dial: r.dial, Resolve: r.lookUp}
	for _, o := range opts {
		o(&cfg)
	}
	r.Pool = pool.New(cfg)
	return r
}

// bubble runs f on a rig under synctest, and looks for broken promises of the
// pool's state at the end.
func bubble(t *testing.T, f func(t *testing.T, r *rig), opts ...option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, opts...)
		defer r.check()
		defer r.Close()
		defer r.check()
		defer synctest.Wait()
		f(t, r)
	})
}

// host announces hosts that show one certificate at one address.
func (r *rig) host(c *x509.Certificate, addr netip.Addr, hosts ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range hosts {
		r.dns[h] = []netip.Addr{addr}
		r.certs[h] = c
	}
}

// shared announces hosts with a certificate that names them all, at addr1.
func (r *rig) shared(hosts ...string) { r.host(leaf(hosts...), addr1, hosts...) }

// set changes the rig's fields while the pool runs.
func (r *rig) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// dialed returns the hosts dialed so far, in order.
func (r *rig) dialed() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var hosts []string
	for _, d := range r.dials {
		hosts = append(hosts, d.Host)
	}
	return hosts
}

// wantDials demands that so many dials have been made in all.
func (r *rig) wantDials(n int) {
	r.t.Helper()
	synctest.Wait()
	if got := r.dialed(); len(got) != n {
		r.t.Fatalf("%d dials, want %d: %q", len(got), n, got)
	}
	if got := r.Stats().Dials; got != uint64(n) {
		r.t.Fatalf("Stats.Dials = %d, want %d", got, n)
	}
}

func (r *rig) wantLookups(host string, n int) {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := r.lookups[host]; got != n {
		r.t.Fatalf("%s looked up %d times, want %d", host, got, n)
	}
}

// open returns the connections that are not closed.
func (r *rig) open() []*fakeConn {
	r.mu.Lock()
	conns := slices.Clone(r.conns)
	r.mu.Unlock()
	return slices.DeleteFunc(conns, (*fakeConn).isClosed)
}

// conn returns the connection that was made after i others.
func (r *rig) conn(i int) *fakeConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns[i]
}

// nthDial returns the dial that was begun after i others.
func (r *rig) nthDial(i int) *fakeDial {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dials[i]
}

func (r *rig) lastDial() *fakeDial {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dials[len(r.dials)-1]
}

// check looks for what no state of the pool may have.
func (r *rig) check() {
	r.t.Helper()
	r.mu.Lock()
	hosts := slices.Collect(maps.Keys(r.certs))
	r.mu.Unlock()
	if err := r.CheckInvariants(hosts...); err != nil {
		r.t.Fatalf("invariant: %v", err)
	}
}

func names(format string, n int) []string {
	hosts := make([]string, n)
	for i := range hosts {
		hosts[i] = fmt.Sprintf(format, i)
	}
	return hosts
}

const handshake = 50 * time.Millisecond // the rig's
