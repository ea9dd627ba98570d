package pool

import "time"

// Limits bound what a pool keeps. Zero means no limit, except where said;
// negative always means no limit.
type Limits struct {
	// MaxConns bounds the HTTP/2 connections in all, those being dialed or
	// closed included. A request that needs another one then has the
	// connection closed that has been idle for longest, or waits if none is
	// idle. Where it would wait behind hosts that are always busy, later
	// requests are held back from one connection, so that it may become idle:
	// after a second without room for a second, and then ever more rarely and
	// for longer, down to once a minute and up to eight seconds.
	MaxConns int

	// MaxConnsPerHost bounds the connections dialed for one host and port in
	// one partition, those being dialed or closed included. When it is
	// reached, requests wait. It does not come from the base transport.
	MaxConnsPerHost int

	// MaxIdleConns bounds the connections without a request. Zero means the
	// base transport's MaxIdleConns, whose zero means no limit.
	MaxIdleConns int

	// MaxStreamsPerConn bounds the requests under way on one connection, where
	// the server's own limit is not lower.
	MaxStreamsPerConn int

	// MaxHostsPerConn bounds the hosts whose requests one connection carries,
	// the host that it was dialed for included. 1 means no sharing.
	MaxHostsPerConn int

	// IdleTimeout is how long a connection may be without a request before it
	// is closed. Zero means the base transport's IdleConnTimeout, whose zero
	// means for ever.
	IdleTimeout time.Duration

	// MaxAge is for how long after its handshake a connection takes new
	// requests. It is closed when those under way at that age have ended.
	MaxAge time.Duration
}
