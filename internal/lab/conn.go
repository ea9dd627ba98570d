package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"

	"golang.org/x/net/http2"
)

var (
	errNotHTTP2  = errors.New("lab: not an HTTP/2 connection, or not yet")
	errConnEnded = errors.New("lab: the connection has ended")
)

// Conn is an accepted connection, for scripts. Its methods may be called from
// any goroutine. Those that send a frame return when it was written, or is
// about to be by another writer; they fail before the server's SETTINGS were
// sent and on HTTP/1.1.
type Conn struct {
	lab      *Lab
	endpoint *endpoint
	id       int
	raw      net.Conn
	tls      *tls.Conn
	ctx      context.Context // ends with the connection
	cancel   context.CancelFunc
	row      *ConnRecord

	// Set by serve before the connection is served, not changed after.
	state tls.ConnectionState
	seen  map[string]bool // authorities; used by one goroutine

	h2 atomic.Pointer[h2conn] // nil before SETTINGS were sent and on HTTP/1.1
}

func newConn(l *Lab, e *endpoint, nc net.Conn, id int) *Conn {
	c := &Conn{
		lab:      l,
		endpoint: e,
		id:       id,
		raw:      nc,
		tls:      tls.Server(nc, e.tls),
		row:      l.record.accept(id, nc.LocalAddr().String(), nc.RemoteAddr().String()),
		seen:     make(map[string]bool),
	}
	c.ctx, c.cancel = context.WithCancel(l.ctx)
	return c
}

// serve is the connection's life.
func (c *Conn) serve() {
	defer func() {
		c.Cut()
		c.lab.record.change(func() { c.row.Closed = true })
		c.lab.remove(c)
	}()
	if sleep(c.ctx, c.endpoint.server.HandshakeDelay) != nil {
		return
	}
	err := c.tls.Handshake()
	c.state = c.tls.ConnectionState()
	if err != nil {
		c.lab.record.change(func() { c.row.SNI, c.row.Handshake = c.state.ServerName, err })
		return
	}
	proto := c.state.NegotiatedProtocol
	if proto != "h2" {
		proto = "http/1.1"
	}
	c.lab.record.handshake(c.row, c.state.ServerName, proto, c.state.DidResume, len(c.state.PeerCertificates) > 0)
	if proto == "h2" {
		serveHTTP2(c)
	} else {
		serveHTTP1(c)
	}
}

// note fills in what all requests of a connection have in common.
func (c *Conn) note(req *Request) {
	req.Conn = c.id
	req.SNI = c.state.ServerName
	req.LocalAddr = c.row.LocalAddr
	if req.First = !c.seen[req.Authority]; req.First {
		c.seen[req.Authority] = true
	}
}

// ID returns the connection's number in the record.
func (c *Conn) ID() int { return c.id }

// LocalAddr returns the server's address.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the client's address.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// Context ends when the connection does.
func (c *Conn) Context() context.Context { return c.ctx }

// Cut closes the socket at once, without a TLS close-notify.
func (c *Conn) Cut() {
	_ = c.raw.Close()
	c.cancel()
}

// Close sends a TLS close-notify and closes the socket. Responses are not
// completed.
func (c *Conn) Close() error {
	err := c.tls.Close()
	c.cancel()
	return err
}

// Freeze makes the server fall silent: it sends nothing more, not even
// acknowledgements, and drops what it reads. Only the end of the connection
// ends that. On HTTP/1.1 it does nothing.
func (c *Conn) Freeze() {
	if h := c.h2.Load(); h != nil {
		h.frozen.Store(true)
	}
}

// Origin sends an ORIGIN frame (RFC 8336), or more than one if the origins do
// not fit. Without origins it sends an empty one.
func (c *Conn) Origin(origins ...string) error {
	return c.send(func(h *h2conn) error { return h.writeOrigin(origins) })
}

// Frame sends any frame. The server takes no notice of its meaning.
func (c *Conn) Frame(typ http2.FrameType, flags http2.Flags, stream uint32, payload []byte) error {
	return c.send(func(h *h2conn) error { return h.fr.WriteRawFrame(typ, flags, stream, payload) })
}

// GoAway sends GOAWAY. Streams above last end without another frame, and later
// ones are ignored. The connection stays open.
func (c *Conn) GoAway(last uint32, code http2.ErrCode) error {
	if h := c.h2.Load(); h != nil {
		h.drain(last)
	}
	return c.send(func(h *h2conn) error { return h.fr.WriteGoAway(last, code, nil) })
}

// Settings sends SETTINGS. A stream limit among them holds at once for what is
// refused, and when acknowledged for what counts as overshoot.
func (c *Conn) Settings(settings ...http2.Setting) error {
	return c.send(func(h *h2conn) error { return h.writeSettings(settings) })
}

// Reset sends RST_STREAM and ends the stream's request, if there is one.
func (c *Conn) Reset(stream uint32, code http2.ErrCode) error {
	h := c.h2.Load()
	if h == nil {
		return errNotHTTP2
	}
	return h.reset(stream, code)
}

// Ping sends a PING frame. It does not wait for the answer.
func (c *Conn) Ping() error {
	return c.send(func(h *h2conn) error { return h.fr.WritePing(false, [8]byte{'h', '2', ' ', 'l', 'a', 'b'}) })
}

func (c *Conn) send(write func(*h2conn) error) error {
	h := c.h2.Load()
	if h == nil {
		return errNotHTTP2
	}
	return h.write(func() error { return write(h) })
}

// FromRequest returns the connection a handler's request arrived on and what
// the record knows of it. It panics if r is no request of a lab.
func FromRequest(r *http.Request) (*Conn, *Request) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	return x.conn, &x.req
}

// exchange is a request on its connection. It is a context, so that one
// allocation serves both.
type exchange struct {
	context.Context
	conn *Conn
	req  Request
}

type exchangeKey struct{}

func (x *exchange) Value(key any) any {
	if key == (exchangeKey{}) {
		return x
	}
	return x.Context.Value(key)
}
