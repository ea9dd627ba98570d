package transport

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/h2coalesce/h2coalesce/internal/dial"
	"github.com/h2coalesce/h2coalesce/pool"
)

// directiveKey is the context key of a *directive.
type directiveKey struct{}

// directive tells dialForBase how to connect for a request.
type directive struct {
	protos []string // ALPN

	mu   sync.Mutex
	conn net.Conn // an established connection to use instead; nil once taken
}

func (d *directive) take() net.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	conn := d.conn
	d.conn = nil
	return conn
}

// viaBase sends a request with net/http. conn, if not nil, is a connection
// just made for it, on which the server did not choose HTTP/2.
func (c *core) viaBase(req *http.Request, opts *options, conn net.Conn) (*http.Response, error) {
	d := &directive{protos: c.protos, conn: conn}
	if upgrades(req) {
		d.protos = []string{"http/1.1"}
	}
	ctx := context.WithValue(req.Context(), directiveKey{}, d)
	if conn != nil {
		ctx = dial.Retrace(ctx, func(t *httptrace.ClientTrace) {
			t.GetConn, t.TLSHandshakeStart, t.TLSHandshakeDone = nil, nil, nil
		})
	}
	res, err := c.base.of(opts.partition).RoundTrip(req.WithContext(ctx))
	if conn := d.take(); conn != nil {
		conn.Close() // net/http had another one idle
	}
	if err != nil {
		c.http1.forget(req, opts)
		return nil, err
	}
	if res.ProtoMajor == 2 {
		c.http1.forget(req, opts) // so that the next request is the pool's again
	}
	res.Request = req
	return res, nil
}

// dialForBase is the DialTLSContext of the net/http transports: it hands over
// a connection made before, or dials with the pool's dialer.
func (c *core) dialForBase(ctx context.Context, _, addr string) (net.Conn, error) {
	protos := c.protos
	if d, ok := ctx.Value(directiveKey{}).(*directive); ok {
		if conn := d.take(); conn != nil {
			return conn, nil
		}
		protos = d.protos
	}
	// What DialTLSContext returns is net/http's to report.
	ctx = dial.Retrace(ctx, func(t *httptrace.ClientTrace) {
		t.TLSHandshakeStart, t.TLSHandshakeDone = nil, nil
	})
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	if c.dialer.Resolves() {
		if addrs, err = c.dialer.Resolve(ctx, host); err != nil {
			return nil, err
		}
	}
	r, err := c.dialer.Dial(ctx, dial.Target{Host: host, Port: port, Addrs: addrs, Protos: slices.Clone(protos)})
	if err != nil {
		return nil, err
	}
	return r.Conn, nil
}

// notHTTP2Error is the outcome of a dial whose server chose another protocol.
// It carries the connection to the first request that takes it.
type notHTTP2Error struct {
	mu   sync.Mutex
	conn net.Conn
}

func (e *notHTTP2Error) Error() string { return pool.ErrNotHTTP2.Error() }

func (e *notHTTP2Error) Unwrap() error { return pool.ErrNotHTTP2 }

func (e *notHTTP2Error) take() net.Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	conn := e.conn
	e.conn = nil
	return conn
}

// Abandon closes the connection if no request has taken it.
func (e *notHTTP2Error) Abandon() {
	if conn := e.take(); conn != nil {
		conn.Close()
	}
}
