package pool

import "time"

// Limits bound what a pool keeps. Zero means no limit, except where said;
// negative means no limit throughout.
type Limits struct {
	// MaxConns bounds the HTTP/2 connections in all, those being dialed or
	// closed included. When it is reached, the connection that has been idle
	// for longest is closed to make room; if none is idle, requests wait.
	MaxConns int

	// MaxConnsPerHost bounds the connections dialed for one host (in one
	// partition), those being dialed included.
	MaxConnsPerHost int

	// MaxIdleConns bounds the connections without a request. Zero means the
	// base transport's MaxIdleConns, whose zero means no limit.
	MaxIdleConns int

	// MaxStreamsPerConn bounds the requests under way on one connection,
	// below the server's own limit.
	MaxStreamsPerConn int

	// MaxHostsPerConn bounds the hosts whose requests one connection carries,
	// the host that it was dialed for included. 1 means no sharing.
	MaxHostsPerConn int

	// IdleTimeout is how long a connection may be without a request before it
	// is closed. Zero means the base transport's IdleConnTimeout, whose zero
	// means no limit.
	IdleTimeout time.Duration

	// MaxAge is how long after its handshake a connection takes new requests.
	// Then it is closed as soon as those under way have ended.
	MaxAge time.Duration
}
