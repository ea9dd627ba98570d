package transport

import (
	"context"
	"io"
	"net/http"
	"reflect"
	"sync/atomic"

	"github.com/h2coalesce/h2coalesce/pool"
)

// responseBody gives the stream back to the pool when the response has been
// read or is closed.
type responseBody struct {
	io.ReadCloser
	lease    pool.Lease
	cancel   context.CancelFunc // of the attempt; may be nil
	upload   bool               // the request has a body, which may still be on its way
	err      error              // what Read ended with
	released atomic.Bool
}

// Read reads the response. At its end the stream is free again, unless the
// request is still being sent (full duplex): then Close frees it.
func (b *responseBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.err = err
		if err != io.EOF || !b.upload {
			b.Close()
		}
	}
	return n, err
}

// Close ends the exchange. The engine has taken the stream off its count by
// the time its own Close returns, so the order matters.
func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	if b.released.CompareAndSwap(false, true) {
		release(b.lease, b.cancel)
	}
	return err
}

// hand prepares res for the caller. The stream is free again when the body has
// been read or closed. If there is none, it is free when the request has been
// sent, which may take longer than the answer: its attempt is not to be canceled
// before.
func (x *exchange) hand(res *http.Response, lease pool.Lease, cancel context.CancelFunc) *http.Response {
	res.Request = x.req
	upload := hasBody(x.req)
	switch {
	case !stateless(res.Body):
		res.Body = &responseBody{ReadCloser: res.Body, lease: lease, cancel: cancel, upload: upload}
	case upload:
		x.body.last.whenClosed(func() { release(lease, cancel) })
	default:
		release(lease, cancel)
	}
	return res
}

// release ends an exchange.
func release(lease pool.Lease, cancel context.CancelFunc) {
	lease.Release()
	if cancel != nil {
		cancel()
	}
}

// stateless reports whether a body is the engine's stand-in for none: it knows
// nothing of a stream, since it has no room to.
func stateless(body io.ReadCloser) bool { return reflect.TypeOf(body).Size() == 0 }
