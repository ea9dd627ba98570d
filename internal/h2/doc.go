// Package h2 is the seam between the connection pool and the HTTP/2 client of
// golang.org/x/net/http2, the engine.
//
// An Engine turns a net.Conn past its TLS handshake into a Conn that carries
// requests. What a pool must know of a connection, and the engine does not
// tell in time or at all, is read off the wire: the engine is given an
// observing connection, which follows the frames in what it reads and reports
// SETTINGS, GOAWAY, ORIGIN (RFC 8336) and the connection's end to Events. It
// also knows when anything was read last, which is how a connection is found
// whose server is gone without a word (P7).
//
// The observing connection hands the engine the bytes that it reads unchanged,
// with one exception: ORIGIN frames are cut out, because the engine does not
// know them and writes a log line for each frame that it does not know. Where
// no extension frame may stand they are left in, so that the engine raises the
// connection error that RFC 9113 asks for.
//
// Only engine.go names http2.Transport and http2.ClientConn, and only retry.go
// knows the engine's errors.
package h2
