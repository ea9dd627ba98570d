// Package transport is an http.RoundTripper that sends the requests for many
// hostnames on few HTTP/2 connections.
//
//	client := &http.Client{Transport: &transport.Transport{}}
//
// # How it differs from http.DefaultTransport
//
//  1. A connection is shared by the hosts that its certificate covers and that
//     resolve to its address (RFC 9113 §9.1.1). net/http opens one for each
//     host.
//  2. A request that a server answers with 421 (Misdirected Request), because
//     it came on another host's connection, is sent again on a connection of
//     its own host (RFC 9110 §15.5.20); the caller sees the second answer
//     only. It is remembered that the host is not served there. net/http hands
//     the 421 to the caller.
//  3. First requests to many hosts at one address wait for one handshake
//     instead of making one each, for Policy.JoinWait at most.
//  4. A host is looked up once, and the addresses that were looked up are the
//     ones dialed, in the way of Happy Eyeballs (RFC 8305).
//  5. When a server's limit on concurrent streams is reached, another
//     connection is dialed if Limits permit. Before the server has told its
//     limit, one request is sent, and the others wait for its SETTINGS.
//  6. HTTP/2 is attempted with a custom TLSClientConfig or dial function too.
//  7. It has Close.
//
// # How it is built
//
// A request that may use HTTP/2 asks a pool.Pool for a connection; the rules
// of package coalesce say which will do. What is not for HTTP/2, and what goes
// through a proxy, is sent by a clone of Base, as is everything to a host that
// has chosen HTTP/1.1; such a host costs one handshake, like with net/http.
// The protocol itself is golang.org/x/net/http2's.
//
// # What is never shared
//
// A connection whose certificate was not verified, under the name that was
// dialed; one with a client certificate, unless Policy.ShareClientCert; one
// through a proxy; one of another partition or port. A request whose Host
// names another host than its URL (domain fronting) goes only on a connection
// of the URL's host. Policy.Match and Policy.Allow narrow or widen the rest.
//
// # What is never sent again
//
// A request that a server may have processed, other than a misdirected one,
// which it has not. A misdirected request that has been sent again already,
// or that was sent on a connection dialed for it. A body that cannot be had
// twice: such a request is not sent on another host's connection before the
// host has been answered there, see Transport.MaxReplayBytes.
package transport
