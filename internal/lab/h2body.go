package lab

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/net/http2"
)

// body is a request's body on its way from the connection to the handler. The
// client's window bounds it. Fail, discard and size accept a nil body.
type body struct {
	st       *stream
	r        *http.Request
	declared int64 // Content-Length, or -1

	mu       sync.Mutex // guards what follows; nothing is called while it is held
	cond     sync.Cond  // buf, err or closed changed
	buf      bytes.Buffer
	err      error // what follows buf
	closed   bool  // the handler wants no more
	received int64
	trailer  http.Header // put into r when err is read
	ask      func()      // called once, before the first read
}

func newBody(st *stream, r *http.Request) *body {
	b := &body{st: st, r: r, declared: r.ContentLength}
	b.cond.L = &b.mu
	return b
}

// expect makes the first read answer "Expect: 100-continue" (RFC 9110 §10.1.1).
func (b *body) expect(w *response) {
	if strings.EqualFold(b.r.Header.Get("Expect"), "100-continue") {
		b.ask = w.sendContinue
	}
}

// Read is the handler's.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	if ask := b.ask; ask != nil {
		b.ask = nil
		b.mu.Unlock()
		ask()
		b.mu.Lock()
	}
	for b.buf.Len() == 0 && b.err == nil && !b.closed {
		b.cond.Wait()
	}
	if b.closed || b.buf.Len() == 0 {
		defer b.mu.Unlock()
		if b.closed {
			return 0, http.ErrBodyReadAfterClose
		}
		if b.trailer != nil {
			b.r.Trailer, b.trailer = b.trailer, nil
		}
		return 0, b.err
	}
	n, _ := b.buf.Read(p)
	b.mu.Unlock()

	h, st := b.st.h, b.st
	if onConn, onStream := h.consumed(st, n); onConn+onStream > 0 {
		_ = h.write(func() error { return h.regrant(st.id, onConn, onStream) })
	}
	return n, nil
}

// Close is the handler's. What arrives later is dropped.
func (b *body) Close() error {
	b.discard()
	return nil
}

// add takes what arrived, unless nobody wants it.
func (b *body) add(p []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received += int64(len(p))
	if b.closed || b.err != nil {
		return false
	}
	b.buf.Write(p)
	b.cond.Broadcast()
	return true
}

// check compares the length with the one declared (RFC 9113 §8.1.1).
func (b *body) check(complete bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.declared >= 0 && (b.received > b.declared || complete && b.received < b.declared) {
		return http2.StreamError{StreamID: b.st.id, Code: http2.ErrCodeProtocol, Cause: errBodyLength}
	}
	return nil
}

// finish ends the body as it should.
func (b *body) finish(trailer http.Header) error {
	if err := b.check(true); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err, b.trailer = io.EOF, trailer
	}
	b.cond.Broadcast()
	return nil
}

// fail ends the body as it should not. What was not read is lost.
func (b *body) fail(err error) {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.err, b.trailer = err, nil
	unread := b.buf.Len()
	b.buf = bytes.Buffer{}
	b.cond.Broadcast()
	b.mu.Unlock()
	b.st.h.drop(unread)
}

func (b *body) discard() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.closed = true
	unread := b.buf.Len()
	b.buf = bytes.Buffer{}
	b.cond.Broadcast()
	b.mu.Unlock()
	b.st.h.drop(unread)
}

func (b *body) size() int64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.received
}
