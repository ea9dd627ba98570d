package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/h2"
	"github.com/h2coalesce/h2coalesce/pool"
)

const (
	// maxUnsent is how many times a request is sent again that its server did
	// not process, after a growing pause, as in net/http.
	maxUnsent = 7

	// maxMoved is how many times it is sent again at once beyond that, because
	// its connection was ended.
	maxMoved = 7
)

// mayConnectAgain returns nil if another connection may be asked for, after err
// of the pool's, when it is time to. Otherwise it returns err.
func (x *exchange) mayConnectAgain(err error) error {
	switch {
	case errors.Is(err, pool.ErrUnusable):
		return x.resendAfter(err, true)
	case errors.Is(err, pool.ErrTurnedAway):
		return x.turnedAway(err)
	}
	return err
}

// turnedAway returns nil if the request may have another connection dialed,
// after one that was dialed for it has ended without a word. It may once: a
// server that is being restarted does better then, one that turns the client
// away does not. net/http does not try again at all.
func (x *exchange) turnedAway(err error) error {
	if x.away++; x.away == 1 {
		return nil
	}
	return err
}

// mayResend returns nil if the request can be sent again after err, when it is
// time to. Otherwise it returns the error that the caller gets.
func (x *exchange) mayResend(err error, lease *pool.Lease) error {
	// A body that comes from an HTTP/2 peer itself may fail with what looks
	// like this connection's error.
	if x.body.failure() != nil {
		return err
	}
	switch h2.RetryOf(err) {
	case h2.RetryUnsent:
	case h2.RetryIdempotent:
		if !idempotent(x.req) {
			return err
		}
	default:
		return err
	}
	if !x.body.claim() {
		return fmt.Errorf("h2coalesce: cannot send the request again, its body was read and there is no GetBody: %w", err)
	}
	if away := lease.TurnedAway(err); away != nil {
		return x.turnedAway(away)
	}
	return x.resendAfter(err, lease.Ended())
}

// resendAfter waits until it is time to send the request again after err, which
// its server did not process. A server that refuses requests is not to be
// pressed; one that has ended the connection meets the request on another,
// which need not wait as long as that does not become a habit. resendAfter
// returns err when there have been attempts enough.
func (x *exchange) resendAfter(err error, connEnded bool) error {
	if connEnded && x.moved < maxMoved {
		x.moved++
		return nil
	}
	if x.unsent == maxUnsent {
		return err
	}
	x.unsent++
	if x.unsent == 1 {
		return nil
	}
	pause := time.Second << (x.unsent - 2)
	pause += time.Duration(rand.Int64N(int64(pause)/10 + 1))
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-x.req.Context().Done():
		return context.Cause(x.req.Context())
	case <-x.req.Cancel: //lint:ignore SA1019 a drop-in heeds it
		return pool.ErrCanceled
	case <-x.done:
		return ErrClosed
	}
}

// idempotent reports whether net/http would take it upon itself to send the
// request twice.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	_, key := req.Header["Idempotency-Key"]
	_, xKey := req.Header["X-Idempotency-Key"]
	return key || xKey
}
