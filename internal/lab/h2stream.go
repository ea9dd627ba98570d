package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/net/http2"
)

var (
	errClientReset = errors.New("lab: reset by the client")
	errGoneAway    = errors.New("lab: above the last stream of a GOAWAY")
	errBodyLength  = errors.New("lab: the body's length is not its Content-Length")
)

// stream is a request in progress.
type stream struct {
	h      *h2conn
	id     uint32
	x      *exchange
	cancel context.CancelFunc
	row    *RequestRecord // nil if rows are not wanted
	body   *body          // nil: the request has none

	// Guarded by h.mu.
	sendWindow int64
	unread     int // received, not yet granted again
	remoteDone bool
	closed     bool  // no longer in h.streams
	err        error // why it was closed before its end
}

// closeLocked takes the stream off the connection, once.
func (st *stream) closeLocked(err error) bool {
	if st.closed {
		return false
	}
	st.closed, st.err = true, err
	delete(st.h.streams, st.id)
	st.h.cond.Broadcast()
	return true
}

// abort ends the stream before its end, and reports whether it had not ended
// yet. Nothing is sent on it after abort has returned, except by a writer that
// holds the write lock already.
func (st *stream) abort(err error) bool {
	st.h.mu.Lock()
	first := st.closeLocked(err)
	st.h.mu.Unlock()
	if first {
		st.h.record.done(st.row, 0, st.body.size(), err)
		st.cancel()
		st.body.fail(err)
	}
	return first
}

// aborted returns why the stream was aborted.
func (st *stream) aborted() error {
	st.h.mu.Lock()
	defer st.h.mu.Unlock()
	return st.err
}

// complete notes that the response is about to end, which frees the stream. It
// reports whether the client has to be told to stop sending.
func (st *stream) complete(status int) (stop bool) {
	st.h.mu.Lock()
	first := st.closeLocked(nil)
	stop = first && !st.remoteDone
	st.h.mu.Unlock()
	if first {
		st.h.record.done(st.row, status, st.body.size(), nil)
	}
	return stop
}

// headers handles HEADERS: a new request, or the trailer of one.
func (h *h2conn) headers(f *http2.MetaHeadersFrame) error {
	h.mu.Lock()
	st, id := h.streams[f.StreamID], f.StreamID
	if st != nil || id <= h.maxStream {
		h.mu.Unlock()
		if st == nil {
			return nil // of a stream that has ended
		}
		return st.trailer(f)
	}
	h.maxStream = id
	open := uint32(len(h.streams))
	over := open >= h.limit
	// A client may act on a new limit before its acknowledgement is out, so a
	// higher one counts from the moment it was sent.
	allowed := h.ackedLimit
	for _, limit := range h.sentLimits {
		allowed = max(allowed, limit)
	}
	overshoot := open >= allowed
	ignored := id > h.lastStream
	h.mu.Unlock()

	switch {
	case id%2 == 0:
		return http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113 §5.1.1
	case ignored:
		h.record.change(func() { h.c.row.Ignored++ })
		return nil
	case over:
		h.record.change(func() {
			h.c.row.Refused++
			if overshoot {
				h.c.row.Overshoot++
			}
		})
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeRefusedStream}
	case f.Truncated:
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeEnhanceYourCalm}
	}
	return h.open(f)
}

// open starts a request. Its goroutine ends when the handler has returned;
// serveHTTP2 waits for it.
func (h *h2conn) open(f *http2.MetaHeadersFrame) error {
	st := &stream{h: h, id: f.StreamID}
	r, err := st.request(f)
	if err != nil {
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol, Cause: err}
	}

	h.mu.Lock()
	st.remoteDone = f.StreamEnded()
	st.sendWindow = h.peerWindow
	h.streams[st.id] = st
	h.active++
	h.served++
	goAway := h.served == h.script.GoAwayAfter
	if goAway {
		h.lastStream = st.id
	}
	st.row = h.record.request(h.c.row, &st.x.req, len(h.streams))
	h.mu.Unlock()

	h.wg.Go(func() { st.run(r) })
	if goAway {
		h.later(func() error {
			if err := h.fr.WriteGoAway(st.id, http2.ErrCodeNo, nil); err != nil {
				return err
			}
			h.mu.Lock()
			h.closing = true
			over := h.active == 0
			h.mu.Unlock()
			if over {
				return h.closeWrite()
			}
			return nil
		})
	}
	return nil
}

// data handles DATA.
func (h *h2conn) data(f *http2.DataFrame) error {
	h.mu.Lock()
	st := h.streams[f.StreamID]
	idle := f.StreamID > h.maxStream
	done := st != nil && st.remoteDone
	if st != nil && f.StreamEnded() {
		st.remoteDone = true
	}
	h.mu.Unlock()
	switch {
	case idle:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case done:
		h.drop(int(f.Length))
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	case st == nil:
		h.drop(int(f.Length))
		return nil
	}
	if padding := int(f.Length) - len(f.Data()); padding > 0 {
		if onConn, onStream := h.consumed(st, padding); onConn+onStream > 0 {
			h.later(func() error { return h.regrant(st.id, onConn, onStream) })
		}
	}
	if !st.body.add(f.Data()) {
		h.drop(len(f.Data()))
	}
	if f.StreamEnded() {
		return st.body.finish(nil)
	}
	return st.body.check(false)
}

// trailer handles a request's second HEADERS.
func (st *stream) trailer(f *http2.MetaHeadersFrame) error {
	st.h.mu.Lock()
	done := st.remoteDone
	st.remoteDone = true
	st.h.mu.Unlock()
	if done {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	}
	if !f.StreamEnded() || len(f.PseudoFields()) > 0 {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol} // RFC 9113 §8.1
	}
	trailer := make(http.Header)
	for _, field := range f.RegularFields() {
		trailer.Add(field.Name, field.Value)
	}
	return st.body.finish(trailer)
}

// run plays the script for the request.
func (st *stream) run(r *http.Request) {
	h, script := st.h, st.h.script
	w := &response{st: st, head: r.Method == http.MethodHead, header: make(http.Header)}
	if st.body != nil {
		st.body.expect(w)
	}
	var code http2.ErrCode
	broken := true
	defer func() {
		var err error
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			err = fmt.Errorf("lab: handler panicked: %v", p)
		}
		if broken {
			if st.abort(http2.StreamError{StreamID: st.id, Code: code, Cause: err}) {
				_ = h.write(func() error { return h.fr.WriteRSTStream(st.id, code) })
			}
		}
		st.body.discard()
		st.cancel()
		h.mu.Lock()
		h.active--
		over := h.closing && h.active == 0
		h.mu.Unlock()
		if over {
			_ = h.write(h.closeWrite)
		}
	}()

	if script.Delay != nil && sleep(st.x, script.Delay(&st.x.req)) != nil {
		return
	}
	if code, broken = script.broken(&st.x.req); broken {
		return
	}
	code, broken = http2.ErrCodeInternal, true // should the handler panic
	script.answer(w, r, &st.x.req)
	broken = w.finish() != nil
}

// drain ignores streams above last and ends those that are open.
func (h *h2conn) drain(last uint32) {
	h.mu.Lock()
	h.lastStream = min(h.lastStream, last)
	var streams []*stream
	for id, st := range h.streams {
		if id > last {
			streams = append(streams, st)
		}
	}
	h.mu.Unlock()
	for _, st := range streams {
		st.abort(errGoneAway)
	}
}

// reset sends RST_STREAM, after which nothing more is sent on the stream.
func (h *h2conn) reset(id uint32, code http2.ErrCode) error {
	h.mu.Lock()
	st := h.streams[id]
	h.mu.Unlock()
	if st != nil {
		st.abort(http2.StreamError{StreamID: id, Code: code})
	}
	return h.write(func() error { return h.fr.WriteRSTStream(id, code) })
}

// fail is reset for the reader.
func (h *h2conn) fail(err http2.StreamError) {
	h.mu.Lock()
	h.maxStream = max(h.maxStream, err.StreamID)
	st := h.streams[err.StreamID]
	h.mu.Unlock()
	if st != nil {
		st.abort(err)
	}
	h.later(func() error { return h.fr.WriteRSTStream(err.StreamID, err.Code) })
}
