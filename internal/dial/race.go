package dial

import (
	"context"
	"net"
	"net/netip"
	"time"
)

const (
	// attemptDelay is the head start of each attempt over the next one, as
	// RFC 8305 §5 recommends.
	attemptDelay = 250 * time.Millisecond

	// minShare is the least time an attempt is given while the deadline
	// allows, as in net.Dialer.
	minShare = 2 * time.Second
)

// An attempt is the outcome of one call of a dial function.
type attempt struct {
	index int
	conn  net.Conn
	err   error
}

// deliver hands a to whoever receives from done, or closes its connection if
// ctx ends first. done is unbuffered, so that a connection always has exactly
// one owner.
func (a attempt) deliver(ctx context.Context, done chan<- attempt) {
	select {
	case done <- a:
	case <-ctx.Done():
		if a.conn != nil {
			a.conn.Close()
		}
	}
}

// interleave orders addresses as RFC 8305 §4 says: the families in turn,
// beginning with that of the first, each in the order the resolver chose.
func interleave(addrs []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, addr := range addrs {
		if addr.Is4() == addrs[0].Is4() {
			first = append(first, addr)
		} else {
			second = append(second, addr)
		}
	}
	ordered := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			ordered = append(ordered, first[i])
		}
		if i < len(second) {
			ordered = append(ordered, second[i])
		}
	}
	return ordered
}

// race dials addrs in order, each attemptDelay after the one before or as soon
// as an attempt fails, and returns the first connection (RFC 8305 §5). The
// other attempts are cancelled then; what they still connect to, they close.
func (d *Dialer) race(ctx context.Context, addrs []string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(addrs[0], err)
	}
	raceCtx, cancel := context.WithCancel(ctx)
	defer cancel()

	done := make(chan attempt)
	errs := make([]error, 0, len(addrs)) // of the attempts started; nil while one runs
	start := func() {
		index := len(errs)
		errs = append(errs, nil)
		attemptCtx, cancel := withShare(raceCtx, len(addrs)-index)
		d.wg.Go(func() {
			defer cancel()
			conn, err := d.dialAddr(attemptCtx, "tcp", addrs[index])
			attempt{index, conn, err}.deliver(raceCtx, done)
		})
	}

	start()
	next := time.NewTimer(attemptDelay)
	defer next.Stop()
	for failed := 0; failed < len(addrs); {
		select {
		case a := <-done:
			if a.err == nil {
				return a.conn, nil
			}
			errs[a.index] = a.err
			failed++
		case <-next.C:
		case <-ctx.Done():
			for i, err := range errs {
				if err == nil {
					errs[i] = dialError(addrs[i], ctx.Err())
				}
			}
			return nil, joinAttempts(addrs, errs)
		}
		if len(errs) < len(addrs) {
			start()
			next.Reset(attemptDelay)
		}
	}
	return nil, joinAttempts(addrs, errs)
}

// withShare limits an attempt to its part of the time left until ctx's
// deadline, when left addresses including its own are still to be tried. As in
// net.Dialer, an address that never answers cannot use up the time of those
// behind it, and no share is uselessly short.
func withShare(ctx context.Context, left int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || left == 1 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, max(time.Until(deadline)/time.Duration(left), minShare))
}
