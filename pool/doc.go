// Package pool decides which open HTTP/2 connection carries a request, and
// opens one when none may.
//
// Connections are found by what their certificates cover, not by the host
// that they were dialed for: the index holds the names of each certificate
// once, however many connections show it. A request is served, in this order,
// by a connection that was dialed for its host, by the connection that its
// host has been placed on before, and by the oldest connection that the rules
// of package coalesce admit. Failing these it waits for a handshake that is
// under way to an address of its host, or has a connection dialed.
//
// The pool never sends more requests on a connection than the server's
// SETTINGS_MAX_CONCURRENT_STREAMS and Limits allow (RFC 9113 §5.1.2). When
// all that a request may use are full, another connection is dialed if the
// limits permit, and else the request waits, first come first served.
//
// Package transport is the pool's user; Limits, Stats and ConnInfo are what
// its callers meet. The pool knows a connection only as a Conn and learns of
// its life through an Observer, so that it can be tested without a network.
package pool
