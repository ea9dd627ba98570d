package soak

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// conns are the servers' open connections.
type conns struct {
	mu   sync.Mutex
	open map[int]*conn
}

// conn is what a server knows of a connection, besides what the lab does.
type conn struct {
	*lab.Conn
	server *server

	hello time.Time // of the handshake, if the server notes it

	mu        sync.Mutex // guards what follows
	used      bool
	partition string          // of the first request
	answered  map[string]bool // hosts that have had an answer other than 421
	listed    map[string]bool // hosts that an ORIGIN frame has listed here later
	highest   uint32          // stream that has arrived
	acted     uint32          // highest stream that was acted on
	limit     uint32          // streams above are not acted on: GOAWAY says so
	frozen    bool
}

// accept is the server's OnConn.
func (s *server) accept(lc *lab.Conn) {
	c := &conn{
		Conn:     lc,
		server:   s,
		answered: make(map[string]bool),
		listed:   make(map[string]bool),
		limit:    math.MaxUint32,
		hello:    s.hellos.take(lc.RemoteAddr()),
	}
	s.world.conns.add(c)
	context.AfterFunc(lc.Context(), func() { s.world.conns.remove(c) })
}

func (cs *conns) add(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = make(map[int]*conn)
	}
	cs.open[c.ID()] = c
}

func (cs *conns) remove(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.open, c.ID())
}

// of returns the connection of an id; nil if it has ended.
func (cs *conns) of(id int) *conn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.open[id]
}

// any returns one of the open connections on which frames can be sent; nil if
// there is none.
func (cs *conns) any(d dice) *conn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var ids []int
	for id, c := range cs.open {
		if !c.isFrozen() {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids) // the order of a map is not the seed's
	return cs.open[pick(d, ids...)]
}

func (c *conn) isFrozen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frozen
}

// freeze makes the server fall silent on the connection.
func (c *conn) freeze() {
	c.mu.Lock()
	c.frozen = true
	c.mu.Unlock()
	c.Freeze()
}

// act reports whether a stream may be acted on. After that no GOAWAY leaves it
// out.
func (c *conn) act(stream uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stream > c.limit {
		return false
	}
	c.acted = max(c.acted, stream)
	return true
}

// goAway sends a GOAWAY that leaves out what has not been acted on, as far as
// choose wants, which is given the lowest and the highest honest last stream.
func (c *conn) goAway(code http2.ErrCode, choose func(low, high uint32) uint32) {
	c.mu.Lock()
	c.limit = min(c.limit, choose(c.acted, max(c.acted, c.highest)))
	last := c.limit
	c.mu.Unlock()
	_ = c.GoAway(last, code) // fails if the connection has ended, which is as well
}

// answers notes that a host gets an answer other than 421.
func (c *conn) answers(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered[host] = true
}

// list sends an ORIGIN frame that lists hosts.
func (c *conn) list(hosts []*host) {
	c.mu.Lock()
	for _, h := range hosts {
		c.listed[h.name] = true
	}
	c.mu.Unlock()
	_ = c.Origin(c.server.world.origins(hosts)...)
}
