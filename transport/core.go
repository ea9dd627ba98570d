package transport

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/internal/dial"
	"github.com/h2coalesce/h2coalesce/internal/h2"
	"github.com/h2coalesce/h2coalesce/pool"
)

const (
	defaultMisdirectedTTL = 10 * time.Minute
	defaultMaxReplayBytes = 64 << 10
)

// core is a Transport at work: its fields as they were at first use, with
// defaults applied.
type core struct {
	maxReplay     int64
	isMisdirected func(*http.Response) bool

	original *http.Transport // for schemes registered with it
	config   *http.Transport // a clone of it, not used for requests itself
	http2    bool            // HTTP/2 is not forbidden
	protos   []string        // ALPN

	dialer *dial.Dialer
	engine *h2.Engine
	pool   *pool.Pool
	base   bases
	http1  protocolMemory

	broken error // what keeps the engine from working
	closed atomic.Bool
	done   chan struct{} // closed with it
}

func newCore(t *Transport) *core {
	c := &core{
		maxReplay:     cmp.Or(t.MaxReplayBytes, defaultMaxReplayBytes),
		isMisdirected: t.IsMisdirected,
		original:      t.Base,
		done:          make(chan struct{}),
	}
	if c.original == nil {
		c.original = defaultBase()
	}
	c.config = c.original.Clone()
	c.http2, c.protos = protocols(c.config)
	c.dialer = dial.New(c.config, t.Resolver)
	c.engine, c.broken = h2.NewEngine(c.config)
	cfg := pool.Config{
		Policy:         t.Policy,
		Limits:         c.limits(t.Limits),
		MisdirectedTTL: cmp.Or(t.MisdirectedTTL, defaultMisdirectedTTL),
		Dial:           c.dial,
	}
	if c.dialer.Resolves() {
		cfg.Resolve = c.dialer.Resolve
	}
	c.pool = pool.New(cfg)
	c.base.config, c.base.dialTLS = c.config, c.dialForBase
	return c
}

// limits applies what Limits takes over from Base.
func (c *core) limits(l pool.Limits) pool.Limits {
	l.MaxIdleConns = cmp.Or(l.MaxIdleConns, c.config.MaxIdleConns)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, c.config.IdleConnTimeout)
	return l
}

func (c *core) closeIdle() {
	c.pool.CloseIdle()
	c.base.closeIdle()
}

func (c *core) close() error {
	if !c.closed.Swap(true) {
		close(c.done)
	}
	c.pool.Close()
	c.base.closeIdle()
	return nil
}

func (c *core) roundTrip(req *http.Request) (*http.Response, error) {
	return c.roundTripAfter(req, nil)
}

// roundTripAfter sends a request. before is the exchange that it goes on with,
// if not nil: what was misdirected there is not sent again twice (M1).
func (c *core) roundTripAfter(req *http.Request, before *exchange) (*http.Response, error) {
	if c.closed.Load() {
		closeBody(req)
		return nil, ErrClosed
	}
	if err := cmp.Or(c.broken, validate(req)); err != nil {
		closeBody(req)
		return nil, err
	}
	if req.URL.Scheme != "https" && req.URL.Scheme != "http" {
		return c.original.RoundTrip(req) // RegisterProtocol, or an error like net/http's
	}
	opts := optionsOf(req.Context())
	dest, ok, err := c.destination(req, &opts)
	switch {
	case err != nil:
		closeBody(req)
		return nil, err
	case !ok:
		return c.viaBase(req, &opts, nil, before)
	}
	x := exchange{core: c, req: req, opts: opts, dest: dest, body: newOutgoing(req, c.maxReplay)}
	if before != nil {
		x.first, x.from, x.again, x.dest.Avoid = before.first, before.from, before.again, before.dest.Avoid
	}
	return x.run()
}

func (c *core) explain(req *http.Request) (coalesce.Decision, error) {
	if c.closed.Load() {
		return coalesce.Decision{}, ErrClosed
	}
	opts := optionsOf(req.Context())
	dest, ok, err := c.destination(req, &opts)
	if err != nil {
		return coalesce.Decision{}, err
	}
	if !ok {
		host, _, ok := hostPort(req.URL)
		if !ok {
			host = req.URL.Hostname()
		}
		return coalesce.Decision{Host: host, Reason: coalesce.ReasonDisabled}, nil
	}
	return c.pool.Explain(req.Context(), dest)
}

// dial makes the pool's connections.
func (c *core) dial(ctx context.Context, t pool.Target, obs pool.Observer) (*pool.Dialed, error) {
	r, err := c.dialer.Dial(ctx, dial.Target{Host: t.Host, Port: t.Port, Addrs: t.Addrs, Protos: c.protos, Partition: t.Partition})
	if err != nil {
		return nil, err
	}
	if r.TLS == nil || r.TLS.NegotiatedProtocol != "h2" {
		// Now, so that no request which comes before those that have waited
		// are told has another connection dialed, and if none has waited.
		c.http1.learn(protocolKey{t.Partition, t.Host, t.Port})
		return nil, &notHTTP2Error{offer{conn: r.Conn}}
	}
	conn, err := c.engine.NewConn(r.Conn, obs)
	if err != nil { // the preface could not be written
		return nil, fmt.Errorf("%w: %w", pool.ErrTurnedAway, err)
	}
	return &pool.Dialed{
		Conn:       conn,
		TLS:        c.vouched(r.TLS),
		RemoteAddr: r.RemoteAddr,
		ClientCert: r.ClientCert,
		Verify:     r.Verify,
	}, nil
}

// vouched returns the state of a connection as the rules are to see it (C3). A
// ServerName fixed in TLSClientConfig is verified in place of whichever host was
// dialed, so what was verified speaks for no host. With InsecureSkipVerify
// nothing is, but a resumed TLS session has the chains of the handshake that it
// was begun with, which may have been another configuration's.
func (c *core) vouched(state *tls.ConnectionState) *tls.ConnectionState {
	config := c.config.TLSClientConfig
	if config == nil || config.ServerName == "" && !config.InsecureSkipVerify {
		return state
	}
	unverified := *state
	unverified.VerifiedChains = nil
	return &unverified
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
