package lab

import (
	"net/netip"
	"sync"
)

// ConnRecord is what the record knows of one accepted connection.
type ConnRecord struct {
	ID         int // from 1, in the order of acceptance, over the whole lab
	SNI        string
	LocalAddr  string // the server's address and port
	RemoteAddr string
	Proto      string // "h2" or "http/1.1"; empty before the handshake ended
	Resumed    bool   // the TLS session was resumed
	ClientCert bool   // the client sent a certificate
	Handshake  error  // why the TLS handshake failed
	Closed     bool
	Requests   int // requests accepted, so neither Refused nor Ignored

	// What follows is counted for HTTP/2 only.

	MaxConcurrent int // most streams open at once
	Overshoot     int // requests above the advertised stream limit, sent after its SETTINGS were acknowledged
	Refused       int // requests above the advertised stream limit, acknowledged or not: all of them were refused
	Ignored       int // requests above the last stream of a GOAWAY already sent
	Pings         int // PING frames received, acknowledgements not included
	Resets        int // RST_STREAM frames received
}

// IP is the address in LocalAddr.
func (c ConnRecord) IP() netip.Addr { return ipOf(c.LocalAddr) }

// RequestRecord is what the record knows of one request that a server
// accepted. It was not accepted if it exceeded the stream limit or came after a
// GOAWAY: ConnRecord counts those.
type RequestRecord struct {
	Request
	Status    int   // of the response; 0: none was sent
	BodyBytes int64 // of the request's body, that arrived before the response ended
	Err       error // why there was no complete response
	Done      bool  // the response, or the attempt, ended
}

// Record counts what happened on a lab's servers. It is safe for concurrent
// use; what it returns are copies.
type Record struct {
	mu         sync.Mutex // guards what follows, the rows' fields included; nothing is called while it is held
	conns      []*ConnRecord
	requests   []*RequestRecord
	accepted   int
	handshakes int
	countOnly  bool
}

// Conns returns the connections in the order of acceptance.
func (r *Record) Conns() []ConnRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	conns := make([]ConnRecord, len(r.conns))
	for i, c := range r.conns {
		conns[i] = *c
	}
	return conns
}

// Requests returns the requests in the order of arrival.
func (r *Record) Requests() []RequestRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	requests := make([]RequestRecord, len(r.requests))
	for i, q := range r.requests {
		requests[i] = *q
		requests[i].Header = q.Header.Clone()
	}
	return requests
}

// Handshakes returns how many TLS handshakes were completed.
func (r *Record) Handshakes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.handshakes
}

// Accepted returns how many connections were accepted.
func (r *Record) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// Count returns how many recorded requests match. It calls match without
// holding a lock.
func (r *Record) Count(match func(RequestRecord) bool) int {
	n := 0
	for _, q := range r.Requests() {
		if match(q) {
			n++
		}
	}
	return n
}

// Reset forgets the requests and the closed connections and sets all counts to
// zero, also those of the connections that are open.
func (r *Record) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests, r.accepted, r.handshakes = nil, 0, 0
	var open []*ConnRecord
	for _, c := range r.conns {
		if c.Closed {
			continue
		}
		c.Requests, c.MaxConcurrent, c.Overshoot = 0, 0, 0
		c.Refused, c.Ignored, c.Pings, c.Resets = 0, 0, 0, 0
		open = append(open, c)
	}
	r.conns = open
}

// DisableRequests stops the recording of requests; connections and their
// counts are recorded still. Benchmarks want it.
func (r *Record) DisableRequests() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.countOnly = true
}

// accept adds the connection of an ID.
func (r *Record) accept(id int, local, remote string) *ConnRecord {
	c := &ConnRecord{ID: id, LocalAddr: local, RemoteAddr: remote}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, c)
	r.accepted++
	return c
}

// handshake notes the end of a handshake that succeeded.
func (r *Record) handshake(c *ConnRecord, sni, proto string, resumed, clientCert bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.SNI, c.Proto, c.Resumed, c.ClientCert = sni, proto, resumed, clientCert
	r.handshakes++
}

// change runs f, which changes a row.
func (r *Record) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// request adds a request. The returned row is nil if rows are not wanted.
// Streams are those open on the connection.
func (r *Record) request(c *ConnRecord, req *Request, streams int) *RequestRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Requests++
	c.MaxConcurrent = max(c.MaxConcurrent, streams)
	if r.countOnly {
		return nil
	}
	row := &RequestRecord{Request: *req}
	row.Header = req.Header.Clone() // handlers may change theirs
	r.requests = append(r.requests, row)
	return row
}

// status notes that a response is about to start.
func (r *Record) status(row *RequestRecord, status int) {
	if row == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	row.Status = status
}

// done notes that a request's response is about to end. The first end counts.
// Status 0 keeps what was noted before.
func (r *Record) done(row *RequestRecord, status int, bodyBytes int64, err error) {
	if row == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if row.Done {
		return
	}
	row.Done, row.BodyBytes, row.Err = true, bodyBytes, err
	if status != 0 {
		row.Status = status
	}
}

func ipOf(addrPort string) netip.Addr {
	ap, err := netip.ParseAddrPort(addrPort)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}
