package dial

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"time"
)

// secure completes TLS on conn as a client of t. If that fails, conn is closed
// and the error is crypto/tls's own, as from net/http.
func (d *Dialer) secure(ctx context.Context, conn net.Conn, t Target) (*Result, error) {
	cfg := d.tlsConfig(t)
	verify := cfg.VerifyConnection // what watches this handshake is not to judge other hosts
	clientCert := watchClientCert(cfg)
	c := tls.Client(conn, cfg)
	state, err := handshake(ctx, c, d.base.TLSHandshakeTimeout)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Result{
		Conn:       c,
		TLS:        &state,
		RemoteAddr: remoteAddr(conn),
		ClientCert: clientCert(state),
		Verify:     verify,
	}, nil
}

// tlsConfig returns a private configuration for one handshake with t.
func (d *Dialer) tlsConfig(t Target) *tls.Config {
	cfg := d.base.TLSClientConfig.Clone() // of nil it is nil
	if cfg == nil {
		cfg = new(tls.Config)
	}
	if cfg.ServerName == "" {
		cfg.ServerName = withoutZone(t.Host)
	}
	cfg.NextProtos = slices.Clone(t.Protos)
	cfg.ClientSessionCache = PartitionSessions(cfg.ClientSessionCache, t.Partition)
	return cfg
}

// withoutZone drops the zone of an IPv6 literal. It names an interface of this
// host and means nothing to the peer (RFC 4007 §6), and no certificate can
// hold one.
func withoutZone(host string) string {
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() != "" {
		return addr.WithZone("").String()
	}
	return host
}

// handshake completes c's handshake within timeout, zero meaning none, and
// tells httptrace about it. It does not close c.
func handshake(ctx context.Context, c *tls.Conn, timeout time.Duration) (tls.ConnectionState, error) {
	trace := httptrace.ContextClientTrace(ctx)
	if timeout != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, handshakeTimeoutError{})
		defer cancel()
	}
	if trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	var state tls.ConnectionState
	err := c.HandshakeContext(ctx)
	if err == nil {
		state = c.ConnectionState()
	} else if cause := context.Cause(ctx); err == ctx.Err() && cause == (handshakeTimeoutError{}) {
		err = cause
	}
	if trace != nil && trace.TLSHandshakeDone != nil {
		trace.TLSHandshakeDone(state, err)
	}
	return state, err
}
