package soak

import (
	"context"
	"crypto/tls"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
	"github.com/h2coalesce/h2coalesce/transport"
)

const (
	workers = 64

	// roundLimit bounds the time between two looks at a transport at rest.
	roundLimit = 30 * time.Second

	// heapWorth is how long a run must be for its heap to tell anything that is
	// worth the 5 s that it takes to look.
	heapWorth = 10 * time.Second

	// grace is what a run may take beyond the time for which requests are sent.
	grace = time.Minute
)

// run is a world and the transport that is loaded against it.
type run struct {
	world   *world
	tr      *transport.Transport
	limits  pool.Limits   // when they are not changed
	longest time.Duration // that a connection is frozen for
	stopped atomic.Bool   // the watchdog has ended the requests
	closing atomic.Bool   // Close has been called, or is about to be
}

// TestSoak loads a transport for the time that -soak says: in rounds, after each
// of which everything has to come to rest.
func TestSoak(t *testing.T) {
	if deadline, ok := t.Deadline(); ok && time.Until(deadline) < *soakFor+grace {
		t.Fatalf("-soak %v needs a longer -timeout, say -timeout %v", *soakFor, *soakFor+5*time.Minute)
	}
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-soak %v -soak.seed %d", *soakFor, seed)

	before := takeInventory(t)
	w, err := newWorld(seed)
	if err != nil {
		t.Fatal(err)
	}
	log.SetOutput(w.totals)
	defer log.SetOutput(os.Stderr)
	r := newRun(w, *soakFor)
	// Neither is closed if the test fails half-way: Close may be what is stuck.

	r.warmUp(t)
	r.checkRest(t)
	heap := heapInUse()
	var took time.Duration
	rounds := roundsIn(*soakFor)
	for n := range rounds {
		start := time.Now()
		w.rough.Store(n%2 == 1)
		r.load(t, n, *soakFor/time.Duration(rounds))()
		took += time.Since(start)
		r.checkRest(t)
		r.report(t)
	}
	r.checkSense(t)
	r.closeUnderLoad(t, rounds)
	r.checkRest(t)
	r.checkClosed(t)
	r.countStats()
	if *soakFor >= heapWorth {
		checkHeap(t, heap)
	}
	w.Close()
	before.check(t)
	r.report(t)
	t.Log(w.totals.table(r.title(), took))
}

// roundsIn returns how many rounds there are in d: gentle ones, in which the
// servers end no HTTP/2 connection under way, and rough ones, in turn.
func roundsIn(d time.Duration) int {
	return 2 * max(1, int((d+2*roundLimit-1)/(2*roundLimit)))
}

// newRun makes the transport. What it remembers, it remembers for a short time
// only, so that everything comes again and again.
func newRun(w *world, length time.Duration) *run {
	config := w.TLSConfig()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(32)
	r := &run{world: w, longest: min(length/3, 6*time.Second)}
	r.limits.IdleTimeout = time.Second
	r.tr = &transport.Transport{
		Base: &http.Transport{
			// No IdleConnTimeout: net/http loses an HTTP/1.1 connection for good
			// if CloseIdleConnections is called while one that has been idle for
			// too long is passed over.
			TLSClientConfig:       config,
			ExpectContinueTimeout: 100 * time.Millisecond,
			// The longest freeze is found out by PING, in runs that are not
			// too short for it.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 3 * time.Second},
		},
		Policy:         coalesce.Policy{Match: coalesce.MatchAddress, AddressTTL: 400 * time.Millisecond},
		Limits:         r.limits,
		Resolver:       w.Resolver(),
		MisdirectedTTL: 700 * time.Millisecond,
		MaxReplayBytes: replayLimit,
	}
	if w.byOrigin {
		r.tr.Policy.Match = coalesce.MatchOrigin
	}
	if w.vetoes {
		r.tr.Policy.Allow = func(c coalesce.Candidate) bool { return !w.byName[c.Host].alone }
	}
	return r
}

// load sends requests for d while things go wrong. The function that it returns
// waits until all of them have ended and the faults are over.
func (r *run) load(t *testing.T, number int, d time.Duration) (wait func()) {
	ctx, cancel := context.WithCancel(context.Background())
	faultsCtx, endFaults := context.WithCancel(ctx)
	var busy, faulty sync.WaitGroup
	f := &faults{run: r, dice: roll(r.world.seed, 'f', uint64(number))}
	faulty.Go(func() { f.inject(faultsCtx) }) // ends when endFaults is called

	ws := make([]*worker, workers)
	until := time.Now().Add(d)
	for i := range ws {
		ws[i] = &worker{run: r, dice: roll(r.world.seed, 'w', uint64(number), uint64(i))}
		busy.Go(func() { ws[i].work(ctx, until) }) // ends soon after until, or after Close
	}
	endWatch := r.watch(t, ws, cancel)
	return func() {
		defer cancel()
		// The watchdog ends what is stuck after patience; what heeds not even
		// that is given up here.
		within(t, d+3*patience, "the end of the requests", busy.Wait)
		endFaults()
		within(t, patience, "the end of the faults", faulty.Wait)
		endWatch()
	}
}

// closeUnderLoad closes the transport while it is in use.
func (r *run) closeUnderLoad(t *testing.T, number int) {
	t.Helper()
	wait := r.load(t, number, patience)
	pause(context.Background(), 300*time.Millisecond)
	r.closing.Store(true)
	within(t, patience, "Close", func() { r.tr.Close() })
	if s := r.tr.Stats(); s.Conns != 0 || s.Waiting != 0 {
		t.Errorf("after Close: %+v", s)
	}
	wait()
}

// warmUp sends a request to each host, so that what is kept for good is there.
func (r *run) warmUp(t *testing.T) {
	t.Helper()
	hosts := make(chan *host, len(r.world.hosts))
	for _, h := range r.world.hosts {
		hosts <- h
	}
	close(hosts)
	var busy sync.WaitGroup
	for range workers {
		busy.Go(func() { // ends when each host has had its request
			w := &worker{run: r, dice: roll(r.world.seed, 'u')}
			for h := range hosts {
				w.send(context.Background(), &request{host: h, method: http.MethodGet})
			}
		})
	}
	within(t, patience, "the warm-up", busy.Wait)
}
