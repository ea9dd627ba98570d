package pool_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/h2coalesce/h2coalesce/pool"
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

func (r *rig) lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	r.lookups[host]++
	r.looking++
	pause := r.lookupTime
	r.mu.Unlock()
	defer r.set(func() { r.looking-- })
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
