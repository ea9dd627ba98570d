// Package lab runs scripted HTTPS servers for tests, benchmarks and the demo.
//
// A [Lab] owns a certificate authority, a [Resolver] with fixed answers, any
// number of servers on loopback addresses that share one port, and a [Record]
// of what they saw. It exists because the questions asked of connection
// sharing are about the protocol: how many handshakes, how many streams at
// once, which name was in the SNI, was the stream limit respected. So HTTP/2
// is served by a small server built on http2.Framer, which counts these things
// where they happen and lets a script send any frame at any time. HTTP/1.1 is
// served by net/http.
//
// The server trusts its client more than a public one could: it does not
// enforce the flow-control windows it grants, nor limit header sizes beyond
// http2.Framer's own limit.
//
// A lab made by [New] listens on sockets. One made by [NewInMemory] opens none:
// its connections come from [Lab.DialPipe] or [Lab.DialContext] and work inside
// a testing/synctest bubble, where every wait of the lab is durable.
//
// # Order of the record
//
// A request's row appears when its header has arrived. Its status is in the
// row before the response's header is sent, and the rest before the end of the
// response is, so a client that has read a response finds it recorded.
package lab
