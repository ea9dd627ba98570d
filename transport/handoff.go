package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/h2coalesce/h2coalesce/internal/dial"
	"github.com/h2coalesce/h2coalesce/pool"
)

// viaBase sends a request with net/http. o, if not nil, offers a connection just
// made for its host, on which the server did not choose HTTP/2. before is the
// exchange that the request was part of until then, if any.
func (c *core) viaBase(req *http.Request, opts *options, o *offer, before *exchange) (*http.Response, error) {
	defer o.leave()
	d := c.directive(req, opts, o)
	defer c.end(d)
	sent := req.WithContext(d.context(req.Context()))
	if d.turns && hasBody(req) && req.GetBody == nil {
		sent.Body = &heldBody{ReadCloser: req.Body, directive: d}
	}
	res, err := c.base.of(opts.partition).RoundTrip(sent)
	if c.closed.Load() {
		// net/http keeps connections again for a request that has begun after
		// Close; now none will.
		c.base.closeIdle()
	}
	if errors.Is(err, errTurned) {
		return c.turned(req, d.turnedBy(), before)
	}
	if b, ok := sent.Body.(*heldBody); ok {
		b.release()
	}
	if err != nil {
		return nil, err
	}
	if res.ProtoMajor == 2 {
		c.http1.forget(d.host) // so that the next request is the pool's
	}
	res.Request = req
	return res, nil
}

// directiveKey is the context key of a *directive.
type directiveKey struct{}

// directive tells dialForBase how to connect for a request: by the connection
// that is on offer, or else by dialing.
type directive struct {
	host       protocolKey // the request's own; zero if it is not an https URL, or an odd one
	protos     []string    // ALPN
	proxy      *url.URL    // what Proxy said, if it was asked
	proxyAsked bool
	offer      *offer // nil if there is none
	turns      bool   // the request is net/http's only as long as the server speaks no HTTP/2

	reported atomic.Int32 // handshakes that httptrace knows of and net/http is about to report

	mu    sync.Mutex  // guards the fields that follow
	spare *dial.Spare // not nil once net/http was told that the host has turned
	owned bool        // spare is this request's
	ended bool        // RoundTrip has returned
}

func (c *core) directive(req *http.Request, opts *options, o *offer) *directive {
	d := &directive{
		protos:     c.protos,
		proxy:      opts.proxy,
		proxyAsked: opts.proxyAsked,
		offer:      o,
	}
	d.host.partition = opts.partition
	if host, port, ok := hostPort(req.URL); ok && req.URL.Scheme == "https" {
		d.host.host, d.host.port = host, port
	}
	if upgrades(req) || opts.proxy != nil { // CONNECT is spoken in HTTP/1.1 to a proxy
		d.protos = []string{"http/1.1"}
	}
	d.turns = c.wouldPool(req, opts) && req.Context().Value(turnedKey{}) == nil
	return d
}

// wouldPool reports whether the request would be the pool's, but for what is known
// of its host: see destination.
func (c *core) wouldPool(req *http.Request, opts *options) bool {
	return c.http2 && !c.config.DisableKeepAlives && req.URL.Scheme == "https" && !closes(req) && !upgrades(req) &&
		(opts.proxyAsked || c.config.Proxy == nil) && opts.proxy == nil
}

// context returns what net/http is to have for the request's. It keeps net/http
// from reporting to httptrace what that knows already: a handshake that
// dialForBase has completed, and that a connection is wanted if that is why
// there is an offer.
func (d *directive) context(ctx context.Context) context.Context {
	ctx = context.WithValue(ctx, directiveKey{}, d)
	return dial.Retrace(ctx, func(t *httptrace.ClientTrace) {
		if d.offer != nil {
			t.GetConn = butFirst(t.GetConn)
		}
		if start := t.TLSHandshakeStart; start != nil {
			t.TLSHandshakeStart = func() {
				if d.reported.Load() == 0 {
					start()
				}
			}
		}
		done := t.TLSHandshakeDone // set in any case: it keeps the count
		t.TLSHandshakeDone = func(s tls.ConnectionState, err error) {
			switch {
			case d.reported.Load() > 0:
				d.reported.Add(-1)
			case done != nil:
				done(s, err)
			}
		}
	})
}

// butFirst returns f without the first call of it. It must not be called
// concurrently.
func butFirst(f func(string)) func(string) {
	if f == nil {
		return nil
	}
	called := false
	return func(s string) {
		if called {
			f(s)
		}
		called = true
	}
}

// offer is a connection for whichever of some requests dials first, if none of
// them is served otherwise. A nil offer is of nothing to nobody.
type offer struct {
	mu    sync.Mutex
	conn  net.Conn // nil once taken
	users int      // requests under way that may take it
}

// join adds a request to those that may take the connection.
func (o *offer) join() *offer {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.users++
	return o
}

// leave ends what join has begun. The last one closes the connection if nobody
// has taken it: net/http may have had another one idle, or the request was
// canceled.
func (o *offer) leave() {
	if o == nil {
		return
	}
	o.mu.Lock()
	o.users--
	o.mu.Unlock()
	o.withdraw()
}

func (o *offer) take() net.Conn {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	conn := o.conn
	o.conn = nil
	return conn
}

// withdraw closes the connection if no request is left that may take it.
func (o *offer) withdraw() {
	o.mu.Lock()
	var conn net.Conn
	if o.users == 0 {
		conn, o.conn = o.conn, nil
	}
	o.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

// notHTTP2Error is the outcome of a dial whose server chose another protocol.
// It carries the connection to the requests that waited for it.
type notHTTP2Error struct{ offer }

func (e *notHTTP2Error) Error() string { return pool.ErrNotHTTP2.Error() }

func (e *notHTTP2Error) Unwrap() error { return pool.ErrNotHTTP2 }

// Abandon is called by the pool when no request is left to take the connection,
// and by one that cannot.
func (e *notHTTP2Error) Abandon() { e.withdraw() }

// take makes the request that calls it one of those that may take the
// connection, until viaBase has sent it.
func (e *notHTTP2Error) take() *offer { return e.join() }

// dialForBase is the DialTLSContext of the net/http transports: it hands over
// a connection made before, or dials with the pool's dialer.
func (c *core) dialForBase(ctx context.Context, _, addr string) (net.Conn, error) {
	d, ok := ctx.Value(directiveKey{}).(*directive)
	if !ok { // not on behalf of viaBase
		d = &directive{protos: c.protos}
	}
	if conn := d.offer.take(); conn != nil {
		return d.handOver(conn), nil
	}
	own := d.dialsHost(addr)
	if own && d.turns && !c.http1.knows(d.host) { // another request has found out
		d.turn(c.http1.spare(d.host), false)
		return nil, errTurned
	}
	t := dial.Target{Protos: slices.Clone(d.protos), Partition: d.host.partition}
	if !own && d.host.host != "" {
		t.Protos = []string{"http/1.1"} // a proxy
	}
	r, err := c.dialTarget(ctx, &t, addr)
	if err != nil {
		return nil, err
	}
	switch h2 := r.TLS != nil && r.TLS.NegotiatedProtocol == "h2"; {
	case !own || !slices.Contains(t.Protos, "h2"): // says nothing new
	case !h2:
		c.http1.learn(d.host)
	case d.turns:
		t.Host = d.host.host // as the pool calls it
		c.turn(d, dial.NewSpare(t, r))
		return nil, errTurned
	}
	return d.handOver(r.Conn), nil
}

// dialTarget completes t by addr, and connects to it.
func (c *core) dialTarget(ctx context.Context, t *dial.Target, addr string) (*dial.Result, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	t.Host = host
	if t.Port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	if c.dialer.Resolves() {
		if t.Addrs, err = c.dialer.Resolve(ctx, host); err != nil {
			return nil, err
		}
	}
	return c.dialer.Dial(ctx, *t)
}

// dialsHost reports whether addr, which net/http dials, is the request's own
// host. Else it is a proxy.
func (d *directive) dialsHost(addr string) bool {
	host, port, ok := hostPort(&url.URL{Host: addr})
	return ok && host == d.host.host && port == d.host.port
}

// handOver returns a connection whose handshake has been reported.
func (d *directive) handOver(conn net.Conn) net.Conn {
	if _, ok := conn.(*tls.Conn); ok { // or net/http does not report one
		d.reported.Add(1)
	}
	return conn
}
