package transport

import (
	"context"
	"errors"
	"net/http"

	"github.com/h2coalesce/h2coalesce/internal/h2"
	"github.com/h2coalesce/h2coalesce/pool"
)

// exchange is one request on its way through the pool.
type exchange struct {
	*core
	req    *http.Request
	opts   options
	dest   pool.Request
	body   outgoing
	unsent int          // attempts that their server did not process
	moved  int          // such attempts whose connection was ended
	away   int          // such attempts for which a connection was dialed in vain
	first  *Misdirected // the misdirected response that it is sent again for
	from   pool.Lease   // on which that came
	again  bool         // it has yet to be sent again

	// What a panic in one of the caller's hooks would lose: see letGo.
	lease    pool.Lease
	reserved bool               // lease has a stream that no request has taken yet
	answer   *http.Response     // of the request on lease, not handed over yet
	cancel   context.CancelFunc // of the attempt that has it; may be nil
}

// run sends the request, and sends it again where that is called for.
func (x *exchange) run() (answer *http.Response, _ error) {
	defer func() { x.body.settle(answer != nil) }()
	defer x.letGo()
	trace := traceOf(x.req)
	x.dest.ProvenOnly = !x.body.replayable()
	for {
		trace.getConn(x.req.URL)
		lease, err := x.pool.Get(x.req.Context(), x.dest)
		if err != nil {
			err = x.mayConnectAgain(err)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return x.unconnected(err)
		}
		x.lease, x.reserved = lease, true
		if x.again {
			x.again = false
			x.pool.Retried()
		}
		trace.gotConn(&lease)
		x.opts.trace.decided(lease.Decision)
		req, err := x.body.next()
		if err != nil { // of GetBody, which is called for a repeated attempt
			return nil, x.explained(err)
		}
		res, err := x.attempt(req, lease)
		if err != nil {
			if err = x.mayResend(err, &lease); err == nil {
				continue
			}
			return nil, x.explained(err)
		}
		if res != nil {
			return res, nil
		}
	}
}

// attempt sends req on the lease's connection. It returns neither a response nor
// an error if the request was misdirected and is to be sent again.
func (x *exchange) attempt(req *http.Request, lease pool.Lease) (*http.Response, error) {
	var cancel context.CancelFunc
	if x.body.source != nil {
		// Lets go of the attempt even while it waits for the caller's body.
		var ctx context.Context
		ctx, cancel = context.WithCancel(req.Context())
		req = req.WithContext(ctx)
	}
	x.reserved = false // from here on the stream is the request's
	res, err := connOf(&lease).RoundTrip(req)
	if err != nil {
		release(lease, cancel)
		return nil, err
	}
	x.answer, x.cancel = res, cancel
	if x.misdirected(res, &lease) {
		x.letGo() // M7: the body of a 421 is of no use and may be endless
		x.dest.Avoid = lease.ID()
		return nil, nil
	}
	x.answer = nil
	return x.hand(res, lease, cancel), nil
}

// letGo gives back what the attempt holds, when it comes to nothing.
func (x *exchange) letGo() {
	switch {
	case x.reserved:
		connOf(&x.lease).Release()
	case x.answer != nil:
		if x.cancel != nil {
			x.cancel()
		}
		x.answer.Body.Close()
	default:
		return
	}
	x.lease.Release()
	x.reserved, x.answer = false, nil
}

// connOf returns the lease's connection, which core.dial has made.
func connOf(l *pool.Lease) *h2.Conn { return l.Conn().(*h2.Conn) }

// misdirected takes in a response. It reports whether the request was
// misdirected and is to be sent again.
func (x *exchange) misdirected(res *http.Response, lease *pool.Lease) bool {
	if !x.saysMisdirected(res, lease) {
		lease.Answered()
		if x.first != nil && !x.first.Shared {
			x.from.Disown()
		}
		return false
	}
	m := Misdirected{
		Host:       x.dest.Host,
		Status:     res.StatusCode,
		Conn:       lease.ID(),
		ConnHost:   lease.ConnHost(),
		RemoteAddr: lease.RemoteAddr(),
		Shared:     lease.Shared(),
	}
	m.Outcome = x.outcome(lease)
	m.Retried = m.Outcome == OutcomeRetried
	if m.Retried {
		x.first, x.from, x.again = &m, *lease, true
	}
	x.opts.trace.misdirected(m)
	return m.Retried
}

func (x *exchange) saysMisdirected(res *http.Response, lease *pool.Lease) bool {
	if res.StatusCode == http.StatusMisdirectedRequest {
		return true
	}
	// What is sent again for a misdirected response is not shared.
	return x.isMisdirected != nil && lease.Shared() && x.body.repeatable() && x.isMisdirected(res)
}

// outcome records a misdirected response with the pool and decides what to do
// about it (M1, M5, M6).
func (x *exchange) outcome(lease *pool.Lease) Outcome {
	if x.first != nil {
		lease.MisdirectedAgain()
		return OutcomeAgain
	}
	retry := lease.Misdirected()
	switch {
	case lease.Fresh():
		return OutcomeFresh
	case !retry:
		return OutcomeKnown
	case !x.body.claim():
		return OutcomeBody
	}
	return OutcomeRetried
}

// unconnected deals with the failure to get a connection.
func (x *exchange) unconnected(err error) (*http.Response, error) {
	var other *notHTTP2Error
	if errors.As(err, &other) {
		defer other.Abandon() // GetBody may fail, or panic
		req, err := x.body.next()
		if err != nil {
			return nil, x.explained(err)
		}
		x.body.settle(false) // what net/http does about it, it does by itself
		res, err := x.viaBase(req, &x.opts, other.take(), x)
		if err != nil {
			return nil, x.explained(err)
		}
		res.Request = x.req
		return res, nil
	}
	return nil, x.explained(err)
}

// explained adds to err the misdirected response that led to it (M8).
func (x *exchange) explained(err error) error {
	if x.first == nil || errors.As(err, new(*MisdirectedError)) {
		return err
	}
	return &MisdirectedError{Misdirected: *x.first, Err: err}
}
