package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Lab is a set of servers, the authority that issues their certificates, the
// resolver that names them and the record of what they saw. Its methods are
// safe for concurrent use.
type Lab struct {
	ca       *CA
	resolver Resolver
	record   Record
	inMemory bool

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // accept loops and connections; added to only under mu while not closed

	// mu guards what follows. Nothing that can block is called while it is
	// held. The record's mutex may be taken under it.
	mu         sync.Mutex
	closed     bool
	port       int
	portKnown  bool // someone may rely on port: it cannot change any more
	servers    map[netip.Addr]*endpoint
	conns      map[int]*Conn
	lastConn   int
	clientPort uint16 // last port given to a client end of a pipe
}

// endpoint is a server in its place.
type endpoint struct {
	server Server
	addr   netip.Addr
	tls    *tls.Config
	ln     net.Listener // nil in memory
}

// New makes a lab whose servers listen on sockets. The caller must Close it.
func New() (*Lab, error) { return newLab(false) }

// NewInMemory makes a lab that opens no sockets. Its port is 443 and its
// connections are made by DialPipe and DialContext. The caller must Close it,
// inside the synctest bubble it was made in, if it was.
func NewInMemory() (*Lab, error) { return newLab(true) }

func newLab(inMemory bool) (*Lab, error) {
	ca, err := NewCA()
	if err != nil {
		return nil, err
	}
	l := &Lab{
		ca:         ca,
		inMemory:   inMemory,
		servers:    make(map[netip.Addr]*endpoint),
		conns:      make(map[int]*Conn),
		clientPort: 49151,
	}
	if inMemory {
		l.port = 443
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

// Close closes the listeners and cuts the connections, and waits until the
// goroutines of the lab have ended, handlers and hooks included.
func (l *Lab) Close() {
	l.mu.Lock()
	l.closed = true
	for _, e := range l.servers {
		e.stop()
	}
	conns := l.connsLocked(nil)
	l.mu.Unlock()

	l.cancel()
	for _, c := range conns {
		c.Cut()
	}
	l.wg.Wait()
}

// CA returns the authority all servers' certificates are from.
func (l *Lab) CA() *CA { return l.ca }

// Resolver returns the lab's resolver. Host fills it.
func (l *Lab) Resolver() *Resolver { return &l.resolver }

// Record returns the record of everything that happened.
func (l *Lab) Record() *Record { return &l.record }

// Port returns the port all servers share: 443 in memory, else 0 before the
// first Serve.
func (l *Lab) Port() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.portKnown = l.portKnown || l.port != 0
	return l.port
}

// TLSConfig returns a new client configuration that trusts the lab's authority
// and sets nothing else.
func (l *Lab) TLSConfig() *tls.Config { return &tls.Config{RootCAs: l.ca.Pool()} }

// URL returns the https URL of a path on a host, with the lab's port unless it
// is 443.
func (l *Lab) URL(host, path string) string {
	port := l.Port()
	if addr, err := netip.ParseAddr(host); port == 443 && (err != nil || addr.Is4()) {
		return "https://" + host + path
	} else if port == 443 {
		return "https://[" + host + "]" + path
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(port)) + path
}

// Host makes the resolver answer with ips for host. It panics if one is not an
// IP address.
func (l *Lab) Host(host string, ips ...string) {
	addrs := make([]netip.Addr, len(ips))
	for i, ip := range ips {
		addrs[i] = netip.MustParseAddr(ip)
	}
	l.resolver.Set(host, addrs...)
}

// Serve starts a server on an IP address. The first one's port is chosen by the
// system and the others use the same. Should that port be taken on a later
// address, the lab moves to another, unless it has told its port or accepted a
// connection already.
func (l *Lab) Serve(ip string, s Server) error {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	config, err := s.tlsConfig(l.ca)
	if err != nil {
		return err
	}
	e := &endpoint{server: s, addr: addr, tls: config}

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	if l.servers[addr] != nil {
		return fmt.Errorf("lab: %s has a server already", ip)
	}
	if !l.inMemory {
		ln, err := listen(addr, l.port)
		for try := 0; err != nil && errors.Is(err, syscall.EADDRINUSE) && !l.portKnown && try < 16; try++ {
			ln, err = l.moveLocked(addr)
		}
		if err != nil {
			return err
		}
		l.port = ln.Addr().(*net.TCPAddr).Port
		l.acceptLocked(e, ln)
	}
	l.servers[addr] = e
	return nil
}

// moveLocked moves all servers to a port that is free on addr too, and returns
// the listener for addr.
func (l *Lab) moveLocked(addr netip.Addr) (net.Listener, error) {
	ln, err := listen(addr, 0)
	if err != nil {
		return nil, err
	}
	port := ln.Addr().(*net.TCPAddr).Port
	moved := make(map[*endpoint]net.Listener, len(l.servers))
	for _, e := range l.servers {
		other, err := listen(e.addr, port)
		if err != nil {
			_ = ln.Close()
			for _, m := range moved {
				_ = m.Close()
			}
			return nil, err
		}
		moved[e] = other
	}
	for e, other := range moved {
		e.stop()
		l.acceptLocked(e, other)
	}
	return ln, nil
}

func listen(addr netip.Addr, port int) (net.Listener, error) {
	return net.Listen("tcp", netip.AddrPortFrom(addr, uint16(port)).String())
}

// Stop closes the listener and cuts the connections of the server on an
// address, without waiting for them to end. Connecting to the address is
// refused until it is served again.
func (l *Lab) Stop(ip string) {
	addr, _ := netip.ParseAddr(ip)
	l.mu.Lock()
	e := l.servers[addr]
	if e == nil {
		l.mu.Unlock()
		return
	}
	delete(l.servers, addr)
	e.stop()
	conns := l.connsLocked(e)
	l.mu.Unlock()
	for _, c := range conns {
		c.Cut()
	}
}

func (e *endpoint) stop() {
	if e.ln != nil {
		_ = e.ln.Close()
	}
}

// acceptLocked starts the accept loop of a listener. It ends when the listener
// is closed; Lab.Close waits for it.
func (l *Lab) acceptLocked(e *endpoint, ln net.Listener) {
	e.ln = ln
	l.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil:
				// Out of files, most likely: wait for one to be closed.
				if sleep(l.ctx, 5*time.Millisecond) != nil {
					return
				}
			default:
				_ = l.start(e, nc)
			}
		}
	})
}

// start serves a connection on a goroutine that ends with the connection.
// Lab.Close cuts it and waits.
func (l *Lab) start(e *endpoint, nc net.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.servers[e.addr] != e {
		_ = nc.Close()
		return refused(nc.LocalAddr())
	}
	l.portKnown = true
	l.lastConn++
	c := newConn(l, e, nc, l.lastConn)
	l.conns[c.id] = c
	l.wg.Go(c.serve)
	return nil
}

// remove forgets a connection that has ended.
func (l *Lab) remove(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c.id)
}

// Conns returns the open connections in the order of acceptance, also those
// whose handshake is not finished.
func (l *Lab) Conns() []*Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connsLocked(nil)
}

// connsLocked returns the open connections of e, or of all servers.
func (l *Lab) connsLocked(e *endpoint) []*Conn {
	var conns []*Conn
	for _, c := range l.conns {
		if e == nil || c.endpoint == e {
			conns = append(conns, c)
		}
	}
	slices.SortFunc(conns, func(a, b *Conn) int { return a.id - b.id })
	return conns
}
