// Package transport is an http.RoundTripper that sends the requests for many
// hostnames on few HTTP/2 connections.
//
//	client := &http.Client{Transport: &transport.Transport{}}
//
// # How it differs from http.DefaultTransport
//
//  1. A connection is shared by the hosts that its certificate covers and that
//     resolve to its address (RFC 9113 §9.1.1). net/http opens one for each
//     host. Response.TLS is the connection's, so its ServerName may be another
//     host's.
//  2. A request that is answered 421 (Misdirected Request) is sent once more,
//     on another connection of its own host (RFC 9110 §15.5.20), and the caller
//     sees the second answer only. Where a host was misdirected is remembered,
//     so that its next requests do not go there. What is not sent again is
//     listed below. net/http hands every 421 to the caller.
//  3. The first requests to many hosts at one address wait for one handshake
//     instead of making one each, for Policy.JoinWait at most.
//  4. One look-up serves both purposes: its addresses are the evidence for
//     sharing, and the ones that are dialed, by Happy Eyeballs (RFC 8305).
//  5. When the server's limit on concurrent streams is reached, another
//     connection is dialed if Limits permit. Until the server has told its
//     limit, or for a second, one request is sent and the others wait.
//  6. HTTP/2 is attempted with a custom TLSClientConfig or dial function too.
//  7. A request that Limits keep from a connection waits in line, first come
//     first served, until its context ends.
//  8. Base.MaxConnsPerHost and MaxIdleConnsPerHost bound HTTP/1.1 connections
//     only. For HTTP/2 there is Limits.
//  9. It has Close.
//  10. A request on a connection that has been silent for 10 s goes out with a
//     PING. If nothing comes back within Base.HTTP2.PingTimeout, 15 s if it is
//     zero, the connection is given up.
//
// # How it is built
//
// A request that may use HTTP/2 asks a pool for a connection, see package
// [github.com/h2coalesce/h2coalesce/pool]; which will do is said by the rules
// of package [github.com/h2coalesce/h2coalesce/coalesce]. The protocol itself
// is spoken by golang.org/x/net/http2.
//
// All other requests are sent by a clone of Base, as net/http sends them: those
// with plain HTTP, through a proxy, with "Connection: close" or a WebSocket
// upgrade, and those to hosts that do not choose HTTP/2. Such a host costs one
// handshake, as with net/http, and is remembered for ten minutes.
//
// # What is never shared
//
//   - A connection whose certificate was not verified for the host that it was
//     dialed for.
//   - A connection on which a client certificate was sent, unless
//     Policy.ShareClientCert is set.
//   - A connection through a proxy, to another port, or of another partition.
//   - A request whose Host differs from its URL's (domain fronting): it goes on
//     a connection that was dialed for the URL's host.
//
// Policy.Match says what is needed besides; Policy.Allow may refuse the rest.
//
// # What is never sent again
//
//   - A request that the server may have processed. It has not processed one
//     that it misdirected, refused (REFUSED_STREAM), or left out by a GOAWAY
//     with a lower stream (RFC 9113 §8.7). A GET, and what net/http regards as
//     idempotent besides, is also sent again when its stream was reset with
//     PROTOCOL_ERROR, as some servers do above their limit.
//   - A misdirected request that has been sent again once, or whose connection
//     was dialed for it.
//   - A request whose body cannot be had twice. It is sent on another host's
//     connection only after its host has been answered there, so that sharing
//     does not lose it; see Transport.MaxReplayBytes.
//
// What goes through Base is sent again when net/http does so.
package transport
