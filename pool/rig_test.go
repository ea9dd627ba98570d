package pool_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
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

// leaf returns a certificate as far as the pool reads it: the names, the
// validity, and bytes to tell it apart by. Nothing is signed, since the rig
// says itself which chains are verified.
func leaf(sans ...string) *x509.Certificate {
	c := &x509.Certificate{
		Raw:       []byte(strings.Join(sans, ",")),
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), // a bubble's clock starts in 2000
		NotAfter:  time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	for _, san := range sans {
		if ip := net.ParseIP(san); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, san)
		}
	}
	return c
}

// rig is a pool on fakes: a network whose servers and resolver do what its
// fields say. A test changes them between its steps.
type rig struct {
	*pool.Pool
	t testing.TB

	mu      sync.Mutex // guards what follows while the pool's goroutines run
	dns     map[string][]netip.Addr
	certs   map[string]*x509.Certificate // what a server shows for a host
	lookups map[string]int
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

// fakeDial is one call of Config.Dial.
type fakeDial struct {
	pool.Target
	obs     pool.Observer
	ctx     context.Context
	began   time.Time
	outcome chan error // for held dials
	ended   bool
}

// fakeConn is a connection with an engine that counts streams.
type fakeConn struct {
	rig  *rig
	host string
	obs  pool.Observer

	mu      sync.Mutex
	limit   uint32 // as last told; 100 before, as in the engine
	changed time.Time
	streams int // granted and not yet done
	refuse  bool
	closed  bool
	gone    bool // Close has returned
	closes  int
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

func (r *rig) lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	r.lookups[host]++
	pause := r.lookupTime
	r.mu.Unlock()
	if err := sleep(ctx, pause); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resolve != nil {
		return r.resolve(host)
	}
	if r.lookupErr != nil {
		return nil, r.lookupErr
	}
	addrs, ok := r.dns[host]
	if !ok {
		return nil, errNoHost
	}
	return slices.Clone(addrs), nil
}

func (r *rig) dial(ctx context.Context, target pool.Target, obs pool.Observer) (*pool.Dialed, error) {
	d := &fakeDial{Target: target, obs: obs, ctx: ctx, began: time.Now(), outcome: make(chan error, 1)}
	r.mu.Lock()
	r.dials = append(r.dials, d)
	pause, held, onDial := r.handshake, r.held, r.onDial
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		d.ended = true
	}()
	if onDial != nil {
		onDial(ctx, d)
	}
	if held {
		select {
		case err := <-d.outcome:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	} else if err := sleep(ctx, pause); err != nil {
		return nil, err
	}
	r.mu.Lock()
	err := r.dialErr[target.Host]
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return r.connect(d), nil
}

// connect is the end of a dial that succeeds.
func (r *rig) connect(d *fakeDial) *pool.Dialed {
	c := &fakeConn{rig: r, host: d.Host, obs: d.obs, limit: 100}
	r.mu.Lock()
	cert, settings, shape := r.certs[d.Host], r.maxStreams, r.shape
	silent := r.noSettings
	r.conns = append(r.conns, c)
	d.ended = true // it is counted as a connection now
	r.mu.Unlock()
	out := &pool.Dialed{Conn: c}
	if len(d.Addrs) > 0 {
		out.RemoteAddr = netip.AddrPortFrom(d.Addrs[0], uint16(d.Port))
	}
	if cert != nil {
		out.TLS = state(d.Host, cert)
	}
	if shape != nil {
		shape(d.Target, out)
	}
	if !silent {
		c.settings(settings)
	}
	return out
}

// state is what crypto/tls says after a handshake that verified cert for host.
func state(host string, cert *x509.Certificate) *tls.ConnectionState {
	s := &tls.ConnectionState{
		NegotiatedProtocol: "h2",
		ServerName:         host,
		PeerCertificates:   []*x509.Certificate{cert},
		VerifiedChains:     [][]*x509.Certificate{{cert}},
	}
	if _, err := netip.ParseAddr(host); err == nil {
		s.ServerName = ""
	}
	return s
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish ends a held dial.
func (d *fakeDial) finish(err error) { d.outcome <- err }

func (c *fakeConn) Reserve() bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	granted := !c.refuse
	if c.rig.reserve != nil {
		c.mu.Unlock()
		granted = c.rig.reserve(c, granted)
		c.mu.Lock()
	}
	if granted && c.streams >= int(c.limit) {
		// The engine would refuse. The pool may ask it only if the limit has
		// changed since it decided to.
		granted = false
		if !c.changed.Equal(time.Now()) {
			c.rig.t.Errorf("P4: one more than %d streams on the connection of %s, whose server takes %d", c.streams, c.host, c.limit)
		}
	}
	if granted {
		c.streams++
	}
	c.mu.Unlock()
	return granted
}

// die is the connection's end, by its server or the network. What it holds it
// gives up by itself.
func (c *fakeConn) die() {
	c.mu.Lock()
	c.closed, c.gone = true, true
	c.mu.Unlock()
	c.obs.Closed(nil)
}

func (c *fakeConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.closes++
	if c.closes > 1 {
		c.rig.t.Errorf("the connection of %s is closed %d times", c.host, c.closes)
	}
	c.mu.Unlock()
	c.rig.mu.Lock()
	pause := c.rig.closing
	c.rig.mu.Unlock()
	time.Sleep(pause)
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	return nil
}

// settings has the server announce its limit on streams.
func (c *fakeConn) settings(n uint32) {
	c.mu.Lock()
	if n < c.limit {
		c.changed = time.Now()
	}
	c.limit = n
	c.mu.Unlock()
	c.obs.Settings(n)
}

func (c *fakeConn) setRefuse(v bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = v
}

func (c *fakeConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *fakeConn) inUse() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams
}

// call is one request: a Get in a goroutine of its own.
type call struct {
	pool.Request
	rig    *rig
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when Get has returned; what follows is set then
	lease  pool.Lease
	err    error
	took   time.Duration
}

// request returns what is asked for host.
func request(host string) pool.Request { return pool.Request{Host: host, Port: 443} }

// goGet begins a request for host.
func (r *rig) goGet(host string) *call { return r.goDo(request(host)) }

func own(host string) pool.Request {
	q := request(host)
	q.Own = true
	return q
}

func (r *rig) goDo(q pool.Request) *call {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := &call{Request: q, rig: r, cancel: cancel, done: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(c.done)
		defer cancel(nil)
		c.lease, c.err = r.Get(ctx, q)
		c.took = time.Since(began)
	}()
	synctest.Wait() // so that requests stand in line in the order of their calls
	return c
}

// get does a request as far as Get and demands that it succeeds.
func (r *rig) get(host string) *call { r.t.Helper(); return r.do(request(host)) }

func (r *rig) do(q pool.Request) *call {
	r.t.Helper()
	c := r.goDo(q)
	<-c.done
	if c.err != nil {
		r.t.Fatalf("Get(%s): %v", q.Host, c.err)
	}
	return c
}

// returned reports, once all is quiet, whether Get has returned.
func (c *call) returned() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wantWaiting demands that all of calls wait.
func wantWaiting(t *testing.T, calls ...*call) {
	t.Helper()
	for i, c := range calls {
		if c.returned() {
			t.Fatalf("call %d (%s) does not wait: %v, err %v", i, c.Host, c.kind(), c.err)
		}
	}
}

// wantServed demands that all of calls have been given a connection.
func wantServed(t *testing.T, calls ...*call) {
	t.Helper()
	for i, c := range calls {
		if !c.returned() {
			t.Fatalf("call %d (%s) still waits", i, c.Host)
		}
		if c.err != nil {
			t.Fatalf("call %d (%s): %v", i, c.Host, c.err)
		}
	}
}

func (c *call) kind() coalesce.Reason {
	select {
	case <-c.done:
	default:
		return "waiting"
	}
	if c.err != nil {
		return "failed"
	}
	return c.lease.Decision().Reason
}

// conn returns the connection that the call was given.
func (c *call) conn() *fakeConn { return c.lease.Conn().(*fakeConn) }

// end ends the request: the engine's stream first, as in transport.
func (c *call) end() {
	c.rig.t.Helper()
	<-c.done
	if c.err != nil {
		c.rig.t.Fatalf("ending a request for %s that failed: %v", c.Host, c.err)
	}
	f := c.conn()
	f.mu.Lock()
	f.streams--
	f.mu.Unlock()
	c.lease.Release()
}

func endAll(calls []*call) {
	for _, c := range calls {
		c.end()
	}
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

// goGetAll begins one request for each of hosts.
func (r *rig) goGetAll(hosts ...string) []*call {
	var calls []*call
	for _, h := range hosts {
		calls = append(calls, r.goGet(h))
	}
	return calls
}
