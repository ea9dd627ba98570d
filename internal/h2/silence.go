package h2

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	// silentAfter is how long nothing was read when a request goes out with a
	// PING (P7).
	silentAfter = 10 * time.Second

	// defaultPingTimeout is the engine's default too.
	defaultPingTimeout = 15 * time.Second

	// gRPC's servers hang up at the fourth PING if none of them came five
	// minutes after the one before and no HEADERS or DATA were sent meanwhile
	// ("too_many_pings"). One is left to the engine, which may send it with a
	// reset (golang/go#70575).
	maxPings     = 2
	pingInterval = 5 * time.Minute
)

// A prober finds out whether the server of a silent connection is still there.
// A silence goes by the time of the Read before it: it has one probe, however
// many requests come upon it, and whatever is read ends it.
type prober struct {
	timeout time.Duration
	running sync.WaitGroup // added to with mu held, before stopped is set

	mu      sync.Mutex // guards the fields that follow; nothing that may block is called while it is held
	stopped bool
	silence int64     // the last one that was probed
	pings   int       // sent since the server's last answer to a request
	pinged  time.Time // when the last of them was
}

// probe is called with each request. If nothing was read for 10 s it has a PING
// sent, which a server is to answer before anything else (RFC 9113 §6.7); and if
// then nothing is read within PingTimeout, the connection ends. It does not wait
// for any of that: not even the PING can be written while the peer reads nothing.
func (c *Conn) probe() {
	silence := c.o.lastRead.Load() // first, lest a Read meanwhile be in the future
	now := time.Now()
	// A clock that was set back does not tell how long it has been.
	if d := now.UnixNano() - silence; d >= 0 && d < int64(silentAfter) {
		return
	}
	p := &c.prober
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.o.scan.answered.Swap(false) {
		p.pings = 0
	}
	if p.stopped || p.silence == silence || p.pings >= maxPings && now.Sub(p.pinged) < pingInterval {
		return
	}
	p.silence, p.pinged = silence, now
	p.pings++
	// Ends when the PING is acknowledged, at the timeout, and with the
	// connection. Close waits for it.
	p.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
		defer cancel()
		c.Ping(ctx)
		if ctx.Err() == context.DeadlineExceeded && c.o.lastRead.Load() == silence {
			c.o.lose(&lostError{p.timeout})
		}
	})
}

// blame returns the error of a request that failed with err. If the connection
// was lost it is that, unless the request was canceled or never sent. The engine
// says so itself but where a write was under way, which may fail before it reads
// the reason.
func (c *Conn) blame(req *http.Request, err error) error {
	if lost := c.o.lost(); lost != nil && RetryOf(err) == RetryNever && req.Context().Err() == nil {
		return lost
	}
	return err
}

// stop lets no probe begin any more. The one under way ends with the connection.
func (p *prober) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
}

// lostError is what becomes of the requests on a connection whose server has
// fallen silent. It begins as the engine's error does when its own check, of
// HTTP2Config.SendPingTimeout, finds that: callers are known to look for these
// words. Neither is a timeout by net.Error.
type lostError struct {
	timeout time.Duration
}

func (e *lostError) Error() string {
	return fmt.Sprintf("%s: nothing was received within %v of a PING", textLost, e.timeout)
}
