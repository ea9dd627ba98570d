//lint:file-ignore SA1019 http2.Transport is the only client that takes any net.Conn on Go 1.26; its successor http.Transport.NewClientConn dials by itself and speaks HTTP/2 to a *tls.Conn only.

package h2

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"
)

// The engine's bounds for SETTINGS_MAX_FRAME_SIZE (RFC 9113 §6.5.2), and what
// it takes for a value outside of them.
const (
	minReadFrameSize     = 1 << 14
	maxReadFrameSize     = 1<<24 - 1
	invalidReadFrameSize = 1 << 20
)

// An Engine makes connections. It is safe for concurrent use and holds nothing
// that would have to be closed.
type Engine struct {
	tr          *http2.Transport
	maxFrame    uint32
	pingTimeout time.Duration
}

// NewEngine returns an engine with the settings of base that concern an open
// connection: MaxResponseHeaderBytes, DisableCompression,
// ExpectContinueTimeout, ResponseHeaderTimeout and HTTP2, of which
// StrictMaxConcurrentRequests is left out because it lets Reserve overshoot
// the server's limit. Connections do not time out when idle. base is not
// modified and not kept.
//
// HTTP2.PingTimeout is how long the server has to show signs of life when it was
// sent a PING; zero or negative: 15 s. HTTP2.SendPingTimeout is after how long a
// silence the engine sends one by itself, requests or no; zero or negative:
// never. Conn.RoundTrip sends them regardless of that.
func NewEngine(base *http.Transport) (*Engine, error) {
	var conf http.HTTP2Config
	if base.HTTP2 != nil {
		conf = *base.HTTP2
	}
	conf.StrictMaxConcurrentRequests = false
	// Set in any case: the observing connection must know the limit that the
	// engine keeps, and not depend on which engine's default it is.
	switch n := conf.MaxReadFrameSize; {
	case n == 0:
		conf.MaxReadFrameSize = minReadFrameSize
	case n < minReadFrameSize || n > maxReadFrameSize:
		conf.MaxReadFrameSize = invalidReadFrameSize
	}
	if conf.PingTimeout <= 0 {
		conf.PingTimeout = defaultPingTimeout
	}
	conf.SendPingTimeout = max(conf.SendPingTimeout, 0) // the engine would send them without end
	tr, err := http2.ConfigureTransports(&http.Transport{
		MaxResponseHeaderBytes: base.MaxResponseHeaderBytes,
		DisableCompression:     base.DisableCompression,
		ExpectContinueTimeout:  base.ExpectContinueTimeout,
		ResponseHeaderTimeout:  base.ResponseHeaderTimeout,
		HTTP2:                  &conf,
	})
	if err != nil {
		return nil, fmt.Errorf("h2coalesce: HTTP/2 set-up: %w", err)
	}
	return &Engine{tr: tr, maxFrame: uint32(conf.MaxReadFrameSize), pingTimeout: conf.PingTimeout}, nil
}

// NewConn starts HTTP/2 on c, usually a *tls.Conn past its handshake, and
// reports to ev. It writes the client's preface and SETTINGS, which can block
// on a peer that reads nothing, but does not wait for the server's. On error c
// is closed.
func (e *Engine) NewConn(c net.Conn, ev Events) (*Conn, error) {
	nc, o := observe(c, ev, e.maxFrame)
	cc, err := e.tr.NewClientConn(nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &Conn{cc: cc, nc: nc, o: o, prober: prober{timeout: e.pingTimeout}}, nil
}

// A Conn is one HTTP/2 connection. Its methods are safe for concurrent use.
type Conn struct {
	cc     *http2.ClientConn
	nc     net.Conn
	o      *observer
	prober prober
}

// Reserve takes one of the streams that the server allows, for the next
// RoundTrip. It reports false if there is none, or if the connection takes no
// new requests. It neither blocks on the network nor calls Events.
//
// The engine frees a stream when the response's body is closed, which may be
// after its EOF was read, and holds the stream of a canceled request until the
// server has shown signs of life.
func (c *Conn) Reserve() bool {
	// The engine grants a dead connection that never carried a request.
	return !c.o.closed.Load() && c.cc.ReserveNewRequest()
}

// Release gives back what Reserve took, for a request that will not be sent.
// The stream may become free only after Release has returned. It does not
// block, and sends nothing.
func (c *Conn) Release() {
	// The engine has no inverse of ReserveNewRequest. A request counts as the
	// reserved one when it starts, and one that is canceled by then ends
	// before its headers are written.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.cc.RoundTrip(new(http.Request).WithContext(ctx))
}

// RoundTrip sends req in the place of an earlier Reserve and waits for the
// response's headers. It fires neither GetConn nor GotConn. RetryOf classifies
// its errors. After a request with Close set, or with "Connection: close", the
// connection takes no more.
//
// If nothing was read from the connection for 10 s, a PING goes out with the
// request. If nothing whatever is read within HTTP2.PingTimeout then, the
// connection is closed and the requests on it fail. A PING is left out after
// two others that the server has let pass without a word on any request, until
// five minutes have passed: servers punish more than that.
func (c *Conn) RoundTrip(req *http.Request) (*http.Response, error) {
	c.probe()
	res, err := c.cc.RoundTrip(req)
	if err != nil {
		err = c.blame(req, err)
	}
	return res, err
}

// Ping sends a PING and waits for its acknowledgement.
func (c *Conn) Ping(ctx context.Context) error {
	return c.cc.Ping(ctx)
}

// Shutdown refuses new requests, tells the server so by a GOAWAY, waits for
// the requests under way and then closes the connection. If ctx ends first the
// connection stays as it is, to be closed with Close.
func (c *Conn) Shutdown(ctx context.Context) error {
	// The engine writes the GOAWAY regardless of ctx. A peer that reads
	// nothing keeps the goroutine until Close.
	done := make(chan error, 1)
	go func() { done <- c.cc.Shutdown(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the connection and the requests on it. It spends at most 250 ms
// on telling the peer. Events.Closed is called before Close returns, in its
// goroutine unless the connection had ended before. Close may be called more
// than once.
func (c *Conn) Close() error {
	c.o.Closed(net.ErrClosed) // first, so that no request's error is seen before it
	c.prober.stop()
	err := c.cc.Close()
	c.prober.running.Wait()
	return err
}

// NetConn returns the connection that the engine was given, which observes the
// one given to NewConn. It is meant for httptrace.GotConnInfo; a read from it
// would take bytes from the engine.
func (c *Conn) NetConn() net.Conn {
	return c.nc
}
