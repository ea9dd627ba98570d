package transport

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"sync"

	"github.com/h2coalesce/h2coalesce/internal/dial"
	"github.com/h2coalesce/h2coalesce/pool"
)

// directiveKey is the context key of a *directive.
type directiveKey struct{}

// directive tells dialForBase how to connect for a request: by the connection
// that is on offer, or else by dialing.
type directive struct {
	protos     []string // ALPN
	partition  string
	proxy      *url.URL // what Proxy said, if it was asked
	proxyAsked bool
	offer
}

// offer is a connection for whoever takes it first.
type offer struct {
	mu   sync.Mutex
	conn net.Conn // nil once taken, or if there is none
}

func (o *offer) take() net.Conn {
	o.mu.Lock()
	defer o.mu.Unlock()
	conn := o.conn
	o.conn = nil
	return conn
}

// withdraw closes the connection if nobody has taken it.
func (o *offer) withdraw() {
	if conn := o.take(); conn != nil {
		conn.Close()
	}
}

// viaBase sends a request with net/http. conn, if not nil, is a connection
// just made for it, on which the server did not choose HTTP/2.
func (c *core) viaBase(req *http.Request, opts *options, conn net.Conn) (*http.Response, error) {
	d := &directive{protos: c.protos, partition: opts.partition, proxy: opts.proxy, proxyAsked: opts.proxyAsked, offer: offer{conn: conn}}
	if upgrades(req) || opts.proxy != nil { // CONNECT is spoken in HTTP/1.1 to a proxy
		d.protos = []string{"http/1.1"}
	}
	ctx := context.WithValue(req.Context(), directiveKey{}, d)
	if conn != nil {
		ctx = dial.Retrace(ctx, func(t *httptrace.ClientTrace) {
			t.GetConn, t.TLSHandshakeStart, t.TLSHandshakeDone = nil, nil, nil
		})
	}
	res, err := c.base.of(opts.partition).RoundTrip(req.WithContext(ctx))
	if c.closed.Load() {
		// net/http keeps connections again for a request that has begun after
		// Close; now none will.
		c.base.closeIdle()
	}
	d.withdraw() // net/http may have had another one idle
	if err != nil {
		if req.Context().Err() == nil {
			c.http1.forget(req, opts) // the server may have changed
		}
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
	t := dial.Target{Protos: c.protos}
	if d, ok := ctx.Value(directiveKey{}).(*directive); ok {
		if conn := d.take(); conn != nil {
			return conn, nil
		}
		t.Protos, t.Partition = d.protos, d.partition
	}
	t.Protos = slices.Clone(t.Protos)
	// What DialTLSContext returns is net/http's to report.
	ctx = dial.Retrace(ctx, func(t *httptrace.ClientTrace) {
		t.TLSHandshakeStart, t.TLSHandshakeDone = nil, nil
	})
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	t.Host = host
	if t.Port, err = strconv.Atoi(portText); err != nil {
		return nil, err
	}
	if c.dialer.Resolves() {
		if t.Addrs, err = c.dialer.Resolve(ctx, host); err != nil {
			return nil, err
		}
	}
	r, err := c.dialer.Dial(ctx, t)
	if err != nil {
		return nil, err
	}
	return r.Conn, nil
}

// notHTTP2Error is the outcome of a dial whose server chose another protocol.
// It carries the connection to the first request that takes it.
type notHTTP2Error struct{ offer }

func (e *notHTTP2Error) Error() string { return pool.ErrNotHTTP2.Error() }

func (e *notHTTP2Error) Unwrap() error { return pool.ErrNotHTTP2 }

// Abandon is called by the pool when no request is left to take the connection.
func (e *notHTTP2Error) Abandon() { e.withdraw() }
