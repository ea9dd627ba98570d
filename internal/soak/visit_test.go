package soak

import (
	"net/http"
	"strconv"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// What the two sides tell each other in headers. The first few are the
// request's, and the answer repeats the first two.
const (
	headerID        = "Soak-Id"
	headerHost      = "Soak-Host"
	headerLength    = "Soak-Length" // of the body, in both directions
	headerSum       = "Soak-Sum"    // of the body, in both directions
	headerPartition = "Soak-Partition"
	headerOwn       = "Soak-Own"  // without coalescing
	headerOnce      = "Soak-Once" // the body cannot be had twice

	headerMethod = "Soak-Method"
	headerServer = "Soak-Server"
	headerSNI    = "Soak-Sni"
	headerGot    = "Soak-Got" // the sum of the request's body as it arrived
)

// settleWait is how long the pool waits for SETTINGS, and the ORIGIN frame that
// comes with them, before it shares a connection all the same.
const settleWait = time.Second

// visit is an attempt of a request at a server.
type visit struct {
	*server
	conn *conn
	req  *lab.Request
	w    http.ResponseWriter
	r    *http.Request
	dice dice

	id      uint64
	host    *host // nil if the server has never heard of it
	attempt *attempt
	got     uint32 // the sum of the body
}

// ServeHTTP is the handler of all requests at the server.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.world.serving.Add(1)
	defer s.world.serving.Add(-1)
	lc, req := lab.FromRequest(r)
	c := s.world.conns.of(lc.ID())
	if c == nil {
		panic(http.ErrAbortHandler) // the connection has ended
	}
	v := &visit{server: s, conn: c, req: req, w: w, r: r, host: s.world.byName[req.Host()]}
	v.id, _ = strconv.ParseUint(r.Header.Get(headerID), 10, 64)
	if !s.world.ledger.known(v.id) {
		v.world.ledger.breach(0, "%s got a request that nobody has sent: %s %s %v", s.ip, r.Method, r.Host, r.Header)
		return
	}
	v.attempt = s.world.ledger.arrive(v.id, attempt{server: s.ip, conn: lc.ID(), stream: req.Stream, sni: req.SNI})
	v.dice = roll(s.world.seed, 'v', v.id, uint64(v.attempt.number))
	v.check()
	v.play()
}

// check looks whether the request may be here at all.
func (v *visit) check() {
	header, name := v.r.Header, v.req.Host()
	breach := func(what string) {
		v.world.ledger.breach(v.id, "%s, to %s on a connection for %s", what, name, v.req.SNI)
	}
	shared := v.req.SNI != name
	partition := header.Get(headerPartition)

	c := v.conn
	c.mu.Lock()
	c.highest = max(c.highest, v.req.Stream)
	if !c.used {
		c.used, c.partition = true, partition
	}
	mixes := c.partition != partition
	proven := c.answered[name]
	listed := c.listed[name]
	c.mu.Unlock()
	fenced := v.first != nil && !v.first[name] && !listed && time.Since(c.hello) < settleWait

	if header.Get(headerHost) != name {
		breach("a request meant for " + header.Get(headerHost))
	}
	if v.serves[name] == nil && !(listed && v.world.byOrigin) {
		breach("a request at " + v.ip + ", where neither DNS nor an ORIGIN frame leads")
	}
	if mixes {
		breach("partitions share a connection (C1)")
	}
	if shared && fenced {
		breach("a host outside of the origin set was shared (C8)")
	}
	if shared && header.Get(headerOwn) != "" {
		breach("a request without coalescing was shared")
	}
	if shared && header.Get(headerOnce) != "" && !proven {
		breach("a body that cannot be had twice went where its host was unproven (M6)")
	}
	if shared && v.host != nil && v.host.alone && v.world.vetoes {
		breach("a vetoed host was shared (C11)")
	}
	if v.host != nil && v.host.stray {
		breach("a request without a certificate for its host")
	}
}
