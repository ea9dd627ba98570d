package dial

import (
	"context"
	"math"
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

	// crowd is how many addresses may be behind an attempt before it is given
	// up for them when it has had crowdShare. So not many more than crowd
	// attempts wait for an answer, but for the last ones, and a list of any
	// length is worked through. In that time a SYN has been sent four times.
	crowd      = 32
	crowdShare = crowd * attemptDelay
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
		// Beside an error the connection may be a nil pointer: it is if
		// DialTLSContext is "return tls.Dial(…)".
		if a.err == nil {
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

// race dials addrs in order and returns the first connection (RFC 8305 §5). An
// attempt begins when the one before it has failed, or has had attemptDelay for
// itself; what older ones come to in the meantime does not cut that short. The
// other attempts are cancelled in the end; what they still connect to, they
// close.
func (d *Dialer) race(ctx context.Context, addrs []string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(addrs[0], err)
	}
	ctx, cancel := d.limited(ctx)
	defer cancel()

	done := make(chan attempt)
	errs := make([]error, 0, len(addrs)) // of the attempts started; nil while one runs
	start := func() {
		index := len(errs)
		errs = append(errs, nil)
		attemptCtx, cancel := withShare(ctx, len(addrs)-index)
		d.wg.Go(func() {
			defer cancel()
			a := attempt{index: index}
			a.conn, a.err = d.dialAddr(attemptCtx, "tcp", addrs[index])
			a.deliver(ctx, done)
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
			if a.index != len(errs)-1 {
				continue
			}
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

// limited returns ctx with the limit that the stock dialer sets, and with a way
// to cancel it in any case.
func (d *Dialer) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d.timeout)
}

// withShare limits an attempt to its part of the time left until ctx's
// deadline, when left addresses including its own are still to be tried. As in
// net.Dialer, an address that never answers cannot use up the time of those
// behind it, and no share is uselessly short. Where there is no deadline, as
// with a net.Dialer that has no Timeout, an attempt takes what the system gives
// it, unless there is a crowd behind it.
func withShare(ctx context.Context, left int) (context.Context, context.CancelFunc) {
	share := time.Duration(math.MaxInt64)
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		share = max(time.Until(deadline)/time.Duration(left), minShare)
	}
	if left > crowd {
		share = min(share, crowdShare)
	}
	if share == math.MaxInt64 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, share)
}
