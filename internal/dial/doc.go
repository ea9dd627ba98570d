// Package dial makes the connections of one Transport: it looks a host up,
// dials its addresses with Happy Eyeballs (RFC 8305) and completes TLS.
//
// It follows the dialing half of [net/http.Transport] wherever that can be
// observed: which dial function is called with what, the error values, the
// httptrace events and the meaning of TLSHandshakeTimeout. It differs in four
// respects, each of them because a connection made here may carry the requests
// of several hosts:
//
//   - The look-up is a step of its own. Its addresses are the evidence that two
//     hosts share a server, and they are the very ones that are dialed, so a
//     host costs one look-up.
//   - All addresses take part in the race, not one serial list per family. So
//     what net.Dialer bounds by trying one address at a time is bounded by
//     giving up the oldest attempts of a long list.
//   - A [Result] says what sharing depends on and a net.Conn does not show: the
//     peer's address, and whether a client certificate was sent.
//   - A TLS session is resumed only in the partition that it was begun in. One
//     that has seen no client certificate says so in its Extra.
//
// No call outlasts its context for long, though a dial function or Resolver may:
// these run in goroutines of their own. There a panic cannot be recovered from,
// as with net/http.
//
// With a dial function of the caller's own, nothing is looked up unless a
// Resolver was given as well: that function may be a tunnel, and a look-up
// beside it would tell the local resolver which hosts are visited.
package dial
