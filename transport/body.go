package transport

import (
	"io"
	"net/http"
	"sync"
)

// outgoing is a request across the attempts to send it.
type outgoing struct {
	req      *http.Request
	source   *source // the body, if the request has one but no GetBody
	attempts int
	last     *watch // the last attempt's body; nil if it had none
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

// newOutgoing prepares req for being sent. Of a body without GetBody, up to
// keep bytes are kept for another attempt, if it is known to be no longer.
func newOutgoing(req *http.Request, keep int64) outgoing {
	o := outgoing{req: req}
	if hasBody(req) && req.GetBody == nil {
		o.source = newSource(req.Body, req.ContentLength, 0 < req.ContentLength && req.ContentLength <= keep)
	}
	return o
}

// replayable reports whether the request could be sent again once its body has
// been read.
func (o *outgoing) replayable() bool { return o.source == nil || o.source.keep }

// repeatable reports whether the request can be sent again as things are: also
// when its body has not been touched yet.
func (o *outgoing) repeatable() bool { return o.replayable() || !o.source.wasRead() }

// claim is repeatable for those who act on the answer: the last attempt reads
// nothing any more that the next one would miss.
func (o *outgoing) claim() bool { return o.source == nil || o.source.claim() }

// failure returns the error that the last attempt's body was read with.
func (o *outgoing) failure() error {
	if o.last == nil {
		return nil
	}
	return o.last.failure()
}

// next returns the request for another attempt: the caller's own if it has no
// body, else a copy with a body of its own.
func (o *outgoing) next() (*http.Request, error) {
	o.attempts++
	if !hasBody(o.req) {
		return o.req, nil
	}
	req := *o.req
	if o.source != nil {
		v := o.source.view()
		req.Body, o.last = v, &v.watch
		return &req, nil
	}
	body := o.req.Body
	if o.attempts > 1 {
		var err error
		if body, err = o.req.GetBody(); err != nil {
			return nil, err
		}
	}
	w := &watched{ReadCloser: body}
	req.Body, o.last = w, &w.watch
	return &req, nil
}

// settle says that no further attempt will be made, and whether the last one was
// answered. The caller's body is closed as soon as that is done with it; at once
// if there was none.
func (o *outgoing) settle(answered bool) {
	switch {
	case o.source != nil:
		o.source.settle(answered)
	case o.attempts == 0 && o.req.Body != nil:
		o.req.Body.Close()
	}
}

// watch notices what becomes of the body of one attempt.
type watch struct {
	mu      sync.Mutex // guards the fields that follow; held briefly
	err     error      // what Read failed with, other than io.EOF
	closing bool       // Close was called: a Read that fails from then on does so for that
	closed  bool
	then    func() // called when it is closed
}

func (w *watch) sawRead(err error) {
	if err == nil || err == io.EOF {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closing {
		w.err = err
	}
}

// seesClose is called when the engine begins to close the body, as it does to
// end a Read that waits when the stream has ended.
func (w *watch) seesClose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closing = true
}

func (w *watch) sawClose() {
	w.mu.Lock()
	then := w.then
	w.closed, w.then = true, nil
	w.mu.Unlock()
	if then != nil {
		then()
	}
}

func (w *watch) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// whenClosed has f called when the body is closed, which the engine does when
// it is done with it; now, if it is.
func (w *watch) whenClosed(f func()) {
	w.mu.Lock()
	closed := w.closed
	if !closed {
		w.then = f
	}
	w.mu.Unlock()
	if closed {
		f()
	}
}

// watched is a body that can be had again.
type watched struct {
	io.ReadCloser
	watch
}

func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.sawRead(err)
	return n, err
}

func (b *watched) Close() error {
	b.seesClose()
	defer b.sawClose()
	return b.ReadCloser.Close()
}
