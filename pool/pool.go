package pool

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// answersKept bounds the look-ups that are remembered.
const answersKept = 4096

// Config is what a Pool is made of. Dial is required; the zero values of the
// other fields are usable.
type Config struct {
	Policy coalesce.Policy
	Limits Limits

	// MisdirectedTTL is how long a 421 is remembered beyond its connection.
	// Zero and negative mean not at all. (transport.Transport has another
	// default.)
	MisdirectedTTL time.Duration

	// Resolve looks hosts up. If it is nil nothing is looked up, no address
	// speaks for sharing, and Dial is given host and port alone.
	Resolve ResolveFunc

	// Dial makes connections.
	Dial DialFunc
}

// Pool holds connections and the requests that wait for one. It is safe for
// concurrent use.
type Pool struct {
	cfg    Config
	memory *coalesce.Memory // locks itself

	ctx    context.Context // ends with Close: look-ups and dials
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine that the pool has started; added to under mu

	// mu guards all that follows, and the hosts, entries, dials and waiters
	// reached from it. Methods whose name ends in Locked are called with it
	// held. Nothing that can block is done while holding it: no call into a
	// Conn, no dial, no look-up, no code of the user's; these are given to
	// goroutines, or to the waiter's own goroutine through its channel, whose
	// buffer has room. mu is never taken while another lock of this package
	// is held; coalesce.Memory's is taken inside it.
	mu     sync.Mutex
	limits Limits
	closed bool

	hosts    map[hostKey]*host
	conns    map[*entry]struct{} // ready and draining
	index    index
	dialing  map[bucket][]*dial // dials under way, by the addresses that they may reach
	unwanted map[*dial]struct{} // dials under way that nobody waits for
	idle     idleList
	answers  *simplelru.LRU[hostKey, answer]
	shown    *shown

	waiting waitList  // every waiter
	starved waitList  // those that only MaxConns keeps from dialing
	queue   []*waiter // to be routed before mu is released, or sooner
	turn    turn      // of those in starved
	vacated []*host   // where MaxConnsPerHost may have room for those it keeps from dialing

	deserted []*entry // that may be idle since somebody has left the line for them

	total   int // connections that count against MaxConns: dialing, open, closing
	closing int // those of them whose Close has not returned
	nextID  uint64
	nextSeq uint64
	marks   uint64 // the last waiter.mark given out
	stats   Stats  // the counters only, and Streams
}

// New returns an empty pool. Its goroutines end with Close.
func New(cfg Config) *Pool {
	ctx, cancel := context.WithCancel(context.Background())
	answers, err := simplelru.NewLRU[hostKey, answer](answersKept, nil)
	if err != nil {
		panic(err) // the size is a positive constant
	}
	return &Pool{
		cfg:      cfg,
		memory:   coalesce.NewMemory(0),
		ctx:      ctx,
		cancel:   cancel,
		limits:   cfg.Limits,
		hosts:    make(map[hostKey]*host),
		conns:    make(map[*entry]struct{}),
		index:    newIndex(cfg.Policy.Match),
		dialing:  make(map[bucket][]*dial),
		unwanted: make(map[*dial]struct{}),
		answers:  answers,
		shown:    newShown(),
	}
}

// Request is what a connection is wanted for.
type Request struct {
	Host      string // as coalesce.CanonicalHost returns it
	Port      int
	Partition string // requests of different partitions never share a connection

	// Own admits only connections that were dialed for Host.
	Own bool
	// Fronts says that the request names another host to the server than to
	// the network. It implies Own (C12), and what a server answers to it says
	// nothing of Host.
	Fronts bool
	// ProvenOnly admits another host's connection only if Host has been
	// answered on it before, for a request whose body a 421 would lose (M6).
	ProvenOnly bool
	// Avoid is the ID of the connection that has answered the request with
	// 421; 0 is none. Another one that was dialed for Host is wanted (M1).
	Avoid uint64
	// Cancel, if not nil, ends the wait like the context (http.Request.Cancel).
	Cancel <-chan struct{}
	// Explain asks for Decision.Considered.
	Explain bool
}

// ownOnly reports whether no other host's connection will do.
func (r *Request) ownOnly() bool { return r.Own || r.Fronts || r.Avoid != 0 }

func (r *Request) key() hostKey { return hostKey{r.Partition, r.Host, r.Port} }

// Get returns the right to send one request, with a stream reserved on its
// connection. It blocks while a connection is looked for, dialed or waited
// for, until ctx ends, r.Cancel is closed or the pool is. The error is
// context.Cause(ctx), ErrCanceled, ErrClosed, ErrUnusable, ErrTurnedAway, or
// what the look-up or dial failed with, which may wrap ErrNotHTTP2. The end of
// ctx does not end a dial, which later requests may use. The caller must release
// the lease.
func (p *Pool) Get(ctx context.Context, r Request) (Lease, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return Lease{}, ErrClosed
	}
	if h := p.hosts[r.key()]; h != nil && !r.Explain {
		if l, ok := p.openLocked(h, &r); ok {
			p.mu.Unlock()
			if l.e.conn.Reserve() {
				return l, nil
			}
			return p.wait(ctx, p.refused(ctx, l, &r, nil))
		}
	}
	w := p.newWaiterLocked(ctx, &r)
	p.routeLocked(w)
	p.unlock()
	return p.wait(ctx, w)
}

// goLocked runs f in a goroutine that Close waits for.
func (p *Pool) goLocked(f func()) { p.wg.Go(f) }

// SetLimits replaces the limits, at once: when it returns, connections past
// IdleTimeout and idle ones in excess have been told to close, and those past
// MaxAge take no new requests.
func (p *Pool) SetLimits(l Limits) {
	p.mu.Lock()
	defer p.unlock()
	p.limits = l
	p.turnLocked() // or those held back would have connections dialed
	for e := range p.conns {
		p.expireLocked(e)
		if e.state == stateReady {
			p.armAgeLocked(e)
			p.armIdleLocked(e)
		}
	}
	p.trimIdleLocked()
	for p.roomLocked() < 0 && p.evictLocked() {
	}
	for e := range p.conns {
		p.freedLocked(e)
	}
	p.queueAllLocked(&p.waiting)
}

// CloseIdle closes the connections without a request, and ends the dials that
// no request waits for any more.
func (p *Pool) CloseIdle() {
	p.mu.Lock()
	defer p.unlock()
	for p.idle.oldest != nil {
		p.setStateLocked(p.idle.oldest, stateClosed)
	}
	for _, h := range p.hosts {
		for _, d := range h.dials {
			if d.load == 0 {
				d.end()
			}
		}
	}
}

// Close closes every connection, with the requests on it, fails the requests
// that wait, and returns when every goroutine of the pool has ended. A second
// call waits likewise. It does not fail.
func (p *Pool) Close() error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		p.cancel()
		for _, w := range p.waiting.snapshot() {
			p.failLocked(w, ErrClosed)
		}
		for e := range p.conns {
			p.setStateLocked(e, stateClosed)
		}
	}
	p.unlock()
	p.wg.Wait()
	return nil
}
