package lab

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	// responseBuffer is how much of a body is kept, in the hope that it is all
	// of it: then it gets a Content-Length and leaves with its header.
	responseBuffer = 4 << 10
	// burst is how much of a body is sent before others get their turn.
	burst = 64 << 10
)

var errFinished = errors.New("lab: write after the handler returned")

// response is the http.ResponseWriter of a stream.
type response struct {
	st     *stream
	head   bool // the request is HEAD
	header http.Header

	status   int         // 0: not decided
	snapshot http.Header // header when status was decided
	trailers []string    // declared by a Trailer header
	declared int64       // Content-Length, or -1
	written  int64       // by the handler
	buf      []byte
	finished bool
	sent     bool // the header was; written under the write lock
}

var (
	_ http.ResponseWriter = (*response)(nil)
	_ http.Flusher        = (*response)(nil)
)

func (w *response) Header() http.Header { return w.header }

// WriteHeader sends a 1xx status at once and keeps any other until there is a
// body.
func (w *response) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("lab: invalid status %d", status))
	}
	if w.status != 0 || w.finished {
		return
	}
	if status < 200 {
		h := w.st.h
		_ = h.write(func() error {
			if w.st.aborted() != nil {
				return nil
			}
			return h.writeHeader(w.st.id, status, w.header, nil, false)
		})
		return
	}
	w.status = status
	w.snapshot = w.header.Clone()
	w.trailers = splitNames(w.snapshot["Trailer"])
	w.declared = -1
	if length := w.snapshot.Get("Content-Length"); length != "" {
		if n, err := strconv.ParseInt(length, 10, 63); err == nil {
			w.declared = n
		} else {
			delete(w.snapshot, "Content-Length")
		}
	}
}

func (w *response) Write(p []byte) (int, error) {
	if w.finished {
		return 0, errFinished
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if w.declared >= 0 && w.written+int64(len(p)) > w.declared {
		return 0, http.ErrContentLength
	}
	w.written += int64(len(p))
	if w.head {
		return len(p), nil
	}
	if len(w.buf)+len(p) <= responseBuffer {
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	if err := w.emit(p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush sends what was written so far, at least the header.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError is Flush for http.ResponseController.
func (w *response) FlushError() error {
	if w.finished {
		return errFinished
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.sent && len(w.buf) == 0 {
		return w.st.aborted()
	}
	return w.flush()
}

func (w *response) flush() error {
	buf := w.buf
	w.buf = w.buf[:0]
	return w.emit(buf, false)
}

// EnableFullDuplex is for http.ResponseController. HTTP/2 always is.
func (w *response) EnableFullDuplex() error { return nil }

// finish ends the response after the handler returned.
func (w *response) finish() error {
	if w.st.h.c.ctx.Err() != nil { // which may be why it returned
		w.st.abort(errConnEnded)
		return errConnEnded
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.finished = true
	if w.declared < 0 && !w.sent && bodyAllowed(w.status) && w.written <= responseBuffer && (!w.head || w.written > 0) {
		w.snapshot["Content-Length"] = []string{strconv.FormatInt(w.written, 10)}
	}
	if w.declared > w.written && !w.head && bodyAllowed(w.status) {
		return http.ErrContentLength
	}
	return w.emit(w.buf, true)
}

// trailer collects the trailer's fields.
func (w *response) trailer() http.Header {
	var trailer http.Header
	for name, values := range w.header {
		name, prefixed := strings.CutPrefix(name, http.TrailerPrefix)
		if prefixed || slices.Contains(w.trailers, name) {
			if trailer == nil {
				trailer = make(http.Header)
			}
			trailer[http.CanonicalHeaderKey(name)] = values
		}
	}
	return trailer
}

// emit sends p as the windows allow, preceded by the header if it has not been
// sent. Last ends the response.
func (w *response) emit(p []byte, last bool) error {
	st := w.st
	var trailer http.Header
	if last && !w.head {
		trailer = w.trailer()
	}
	// The header does not wait for the window.
	for wait := w.sent; ; wait = true {
		n, err := st.h.charge(st, min(len(p), burst), wait)
		if err != nil {
			return err
		}
		part := p[:n]
		p = p[n:]
		if err := w.send(part, last && len(p) == 0, trailer); err != nil {
			return err
		}
		if len(p) == 0 {
			return nil
		}
	}
}

// send sends the header, if it has not been sent, and p, and the rest if this
// is the last of the response.
func (w *response) send(p []byte, last bool, trailer http.Header) error {
	st, h := w.st, w.st.h
	stop := false
	if last {
		stop = st.complete(w.status)
	} else if !w.sent {
		h.record.status(st.row, w.status)
	}
	if err := h.lock(); err != nil {
		return err
	}
	if err := st.aborted(); err != nil {
		_ = h.unlock(nil)
		h.discharge(len(p))
		return err
	}
	ended := last && trailer == nil
	var err error
	if !w.sent {
		w.sent = true
		err = h.writeHeader(st.id, w.status, w.snapshot, w.trailers, ended && len(p) == 0)
		ended = ended && len(p) > 0 // by what follows
	}
	if err == nil && (len(p) > 0 || ended) {
		err = h.writeData(st.id, p, ended)
	}
	if err == nil && trailer != nil && last {
		err = h.writeTrailer(st.id, trailer)
	}
	if err == nil && stop {
		// RFC 9113 §8.1: the response does not need the rest of the request.
		err = h.fr.WriteRSTStream(st.id, 0)
	}
	return h.unlock(err)
}

// sendContinue sends the status 100, if it is not too late. It is called by
// whoever reads the request's body first.
func (w *response) sendContinue() {
	h := w.st.h
	_ = h.write(func() error {
		if w.sent || w.st.aborted() != nil {
			return nil
		}
		return h.writeHeader(w.st.id, http.StatusContinue, nil, nil, false)
	})
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
