package transport

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"
)

var (
	errBodyClosed = errors.New("h2coalesce: read of a request body after it was closed")
	errBadCount   = errors.New("h2coalesce: Read of a request body returned an impossible count")
)

// maxAhead bounds the room that is taken for bytes which are yet to come.
const maxAhead = 64 << 10

// source is a body that cannot be had twice. Each attempt reads it through a
// view of its own, the next one after the last has been closed. It is never
// read by two at once, and closed exactly once.
//
// An attempt may end while body.Read waits for the caller. Then a body that is
// kept is read on beside the attempts: what that Read gets is the next one's.
// Any other is lost.
type source struct {
	body   io.ReadCloser
	length int64 // as declared
	keep   bool

	mu      sync.Mutex // guards the fields that follow; not held while body is called
	changed sync.Cond  // current changed, or body.Read returned
	current *view      // the one that may read; nil between attempts
	read    bool       // body.Read was called
	reading bool       // it has not returned; then what follows len(kept) is its to write to
	kept    []byte     // what it got, if keep
	err     error      // sticky
	lost    bool       // closed under a Read: what that would have got is gone
	settled bool       // there will be no view after current
	closed  bool
}

func newSource(body io.ReadCloser, length int64, keep bool) *source {
	s := &source{body: body, length: length, keep: keep}
	s.changed.L = &s.mu
	return s
}

// view is the body of one attempt.
type view struct {
	source *source
	offset int // into source.kept; guarded by source.mu
	watch
}

func (s *source) wasRead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read
}

func (s *source) wasClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// claim reports whether another attempt would have the whole body. If so, the
// views up to now read nothing any more.
func (s *source) claim() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost || s.read && !s.keep {
		return false
	}
	s.turnLocked(nil)
	return true
}

// view returns a body for the next attempt. The views before it read nothing
// any more.
func (s *source) view() *view {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &view{source: s}
	s.turnLocked(v)
	return v
}

// turnLocked makes v the current view. A Read of the one before it returns, if
// that waits in here.
func (s *source) turnLocked(v *view) {
	s.current = v
	s.changed.Broadcast()
}

// settle lets the source be closed with its current view. If there is an answer,
// that does not wait for the Close.
func (s *source) settle(answered bool) {
	s.mu.Lock()
	s.settled = true
	s.forgetLocked()
	s.mu.Unlock()
	s.closeIfDone(answered)
}

// closeIfDone closes the caller's body if no attempt will read it any more,
// under a Read if need be, as net/http does. hurry says that whoever calls is not
// to wait for a Close that takes its time.
func (s *source) closeIfDone(hurry bool) {
	s.mu.Lock()
	done := (s.lost || s.settled && s.current == nil) && !s.closed
	s.closed = s.closed || done
	aside := s.keep && s.reading || hurry && s.err == nil
	s.mu.Unlock()
	switch {
	case done && aside:
		// Not every Close ends the Read: some wait for it, and nobody else is
		// to. Some read what was not read. The goroutine ends with the Close.
		go s.body.Close()
	case done:
		s.body.Close()
	}
}

// Read reads what earlier attempts have read, then the caller's body.
func (v *view) Read(p []byte) (int, error) {
	if v.source.keep {
		return v.readKept(p)
	}
	return v.readThrough(p)
}

// readKept waits for the caller no longer than the attempt takes.
func (v *view) readKept(p []byte) (int, error) {
	s := v.source
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.current != v:
			return 0, errBodyClosed
		case v.offset < len(s.kept) || len(p) == 0:
			n := copy(p, s.kept[v.offset:])
			v.offset += n
			s.forgetLocked()
			return n, nil
		case s.err != nil:
			v.sawRead(s.err)
			return 0, s.err
		case !s.reading:
			s.read, s.reading = true, true
			go s.fetch(s.roomLocked(len(p)))
		}
		s.changed.Wait()
	}
}

// roomLocked returns room after kept for a Read of n bytes; for fewer where the
// body should have ended. It takes room for the whole body once there is some, but
// not without bound: the length is only what the caller says.
func (s *source) roomLocked(n int) []byte {
	have := len(s.kept)
	most := int(min(max(s.length-int64(have), 0), maxAhead)) + bytes.MinRead
	n = min(n, most)
	if cap(s.kept)-have < n {
		more := n + 1 // with one to see the end by
		if have > 0 {
			more = most
		}
		s.kept = slices.Grow(s.kept, more)
	}
	return s.kept[have:][:n]
}

// fetch reads the caller's body once. room is what follows s.kept. It ends with
// the Read, which is to be ended by the body's Close when the request is over.
func (s *source) fetch(room []byte) {
	n, err := 0, errBodyClosed
	if !s.wasClosed() { // before this goroutine got to run
		n, err = s.body.Read(room)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < 0 || n > len(room) {
		n, err = 0, errBadCount
	}
	s.reading, s.err = false, err
	s.kept = s.kept[:len(s.kept)+n]
	s.forgetLocked()
	s.changed.Broadcast()
}

// forgetLocked lets go of what is kept and nobody will read any more: a response
// that is read for long, or not at all, holds on to the source, and a body may be
// longer than declared.
func (s *source) forgetLocked() {
	if !s.settled || s.reading {
		return
	}
	switch v := s.current; {
	case v == nil:
		s.kept = nil
	case v.offset < len(s.kept):
	case s.err != nil:
		s.kept, v.offset = nil, 0
	default:
		s.kept, v.offset = s.kept[:0], 0
	}
}

// readThrough is for a body that is not kept. No view after v will read it.
func (v *view) readThrough(p []byte) (int, error) {
	s := v.source
	if err := s.begin(v); err != nil {
		return 0, err
	}
	n, err := s.body.Read(p)
	v.sawRead(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading, s.err = false, err
	if s.current != v {
		return 0, errBodyClosed
	}
	return n, err
}

// begin notes that v is about to read the caller's body, unless there is a
// reason not to.
func (s *source) begin(v *view) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.current != v || s.reading:
		return errBodyClosed
	case s.err != nil:
		return s.err
	}
	s.read, s.reading = true, true
	return nil
}

// Close ends the attempt's use of the body. If the attempt waits for the caller
// to go on, and no other one will have the body, the stream has ended and its
// server wants no more: the caller's body is closed, as net/http does, which
// ends the wait. If another one may have it, only the attempt's own wait ends.
func (v *view) Close() error {
	s := v.source
	v.seesClose()
	s.mu.Lock()
	if s.current == v {
		s.turnLocked(nil)
		s.lost = s.lost || s.reading && !s.keep
		s.forgetLocked()
	}
	s.mu.Unlock()
	s.closeIfDone(false)
	v.sawClose()
	return nil
}
