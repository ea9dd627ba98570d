package pool

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// state is where a connection stands in its life.
type state uint8

const (
	stateDialing  state = iota // being dialed; takes no requests yet
	stateReady                 // takes requests
	stateDraining              // takes no new requests; closed when those under way have ended
	stateClosed                // ended, or told to end
)

func (s state) String() string {
	switch s {
	case stateDialing:
		return "dialing"
	case stateReady:
		return "ready"
	case stateDraining:
		return "draining"
	case stateClosed:
		return "closed"
	}
	return "invalid"
}

// hostKey names a host within its partition.
type hostKey struct {
	partition string
	name      string // as coalesce.CanonicalHost returns it
	port      int
}

// placement is the standing of a host on another host's connection. It lives
// as long as the connection, or until a 421 or the address's move ends it.
type placement struct {
	// proven is set at the first answer that was not a misdirected one. It is
	// read and written without the pool's lock.
	proven atomic.Bool

	checked   time.Time // when the host's address last justified it; zero if it need not
	checking  bool      // a look-up to justify it again is under way
	byAddress bool      // it rests on the host's address
}

// entry is the pool's record of one connection. All fields are guarded by
// Pool.mu but those that are set before the connection is ready and never
// after: pool, id, key, conn, opened, cert.
type entry struct {
	pool *Pool
	id   uint64
	key  hostKey // the host it is dialed for
	conn Conn
	cert *certificate // nil if the certificate is unknown

	// cancel ends the dial's context. That is done when the connection has
	// been closed, since a dial function may tie the one to the other.
	cancel context.CancelFunc

	state   state
	spoke   bool          // the server has sent a frame that Conn reports, SETTINGS or another
	ended   bool          // Conn has reported that it is closed
	cause   error         // why, then
	facts   coalesce.Conn // what the rules are asked about
	origins coalesce.OriginSet
	listed  []string // hosts at its port that ORIGIN frames have listed

	addressed bool                         // its address is one that its host resolved to
	wanted    bool                         // a request that wants its host's own connection was sent on it: O6 does not end it
	asking    bool                         // the caller's code is being asked about takeovers
	takeovers map[takeover]coalesce.Reason // what it said

	streams    int    // leases out
	maxStreams uint32 // the server's limit
	settled    bool   // the server's SETTINGS have arrived, or were given up on
	stalled    bool   // and maxStreams has been 0 for long enough

	heldAt uint64 // those behind this place in line are held back (see turn); 0: nobody
	turns  int    // times that somebody was

	refusals int  // times in a row that Conn.Reserve contradicted our count
	refused  bool // until rest goes off

	hosts    map[string]*placement // hosts placed here, by name
	excluded map[string]struct{}   // hosts answered 421 here (M2)
	waiters  waitList              // requests that may use it once a stream is free
	mark     uint64                // waiter.mark of the waiter that was put in line here last

	opened    time.Time
	idleSince time.Time
	lastUsed  time.Time
	requests  uint64

	idlePrev, idleNext *entry // links of Pool.idle
	inIdle             bool

	age       alarm         // for MaxAge
	settle    alarm         // for SETTINGS that are waited for
	rest      alarm         // until an engine that has refused is asked again
	idleTimer *time.Timer   // see armIdleLocked
	idleArmed time.Duration // IdleTimeout that idleTimer was set for; 0: not set
}

// hostKey returns the key of another host in e's partition and at its port.
func (e *entry) hostKey(name string) hostKey {
	return hostKey{e.key.partition, name, e.key.port}
}

// limit is how many requests the connection may carry at once.
func (e *entry) limit() int {
	n := 1 // RFC 9113 §6.5.2 sets no limit before SETTINGS; any server takes one stream
	if e.settled {
		n = int(min(e.maxStreams, math.MaxInt32))
	}
	if m := e.pool.limits.MaxStreamsPerConn; m > 0 {
		n = min(n, m)
	}
	return n
}

// free reports whether the connection takes a request now whose place in line is
// seq.
func (e *entry) free(seq uint64) bool {
	return e.state == stateReady && !e.refused && e.streams < e.limit() && (e.heldAt == 0 || seq <= e.heldAt)
}

// unusable is the error of requests that e was dialed for, and that it did not
// carry.
func (e *entry) unusable() error {
	switch {
	case e.spoke || !e.ended:
		return ErrUnusable
	case e.cause == nil:
		return ErrTurnedAway
	}
	return fmt.Errorf("%w: %w", ErrTurnedAway, e.cause)
}

// freeForOthers reports whether the connection takes a request of another host
// now. Its server's first word has to be heard, since that may be a fence: with
// SETTINGS comes ORIGIN, if it comes at all (C8).
func (e *entry) freeForOthers(seq uint64) bool { return e.settled && e.free(seq) }

// excludedKept bounds the hosts that are remembered to have been answered 421 on
// one connection.
const excludedKept = 1024

// hostsFull reports whether MaxHostsPerConn keeps further hosts off, or that so
// many were answered 421 that no more can be remembered.
func (e *entry) hostsFull() bool {
	m := e.pool.limits.MaxHostsPerConn
	return m > 0 && len(e.hosts)+1 >= m || len(e.excluded) >= excludedKept
}

// stopTimers stops what could still fire for a closed connection.
func (e *entry) stopTimers() {
	e.age.stop()
	e.settle.stop()
	e.rest.stop()
	if e.idleTimer != nil {
		e.idleTimer.Stop()
	}
}
