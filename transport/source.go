package transport

import (
	"errors"
	"io"
	"sync"
)

var errBodyClosed = errors.New("h2coalesce: read of a request body after it was closed")

// source is a body that cannot be had twice. Each attempt reads it through a
// view of its own, the next one after the last has been closed. It is never
// read by two at once, and closed exactly once.
type source struct {
	keep bool

	// reading is full while body.Read runs, which may wait for the caller, and
	// while the fields that follow are used.
	reading chan struct{}
	body    io.ReadCloser
	kept    []byte // what has been read, if keep
	err     error  // sticky

	mu      sync.Mutex // guards the fields that follow; held briefly
	current *view
	read    bool // body.Read was called
	inRead  bool // it has not returned
	lost    bool // closed under a Read: what that would have got is gone
	settled bool
	closed  bool
}

// view is the body of one attempt.
type view struct {
	source *source
	offset int // into source.kept
	watch
}

func (s *source) wasRead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read
}

// claim reports whether another attempt would have the whole body. If so, the
// views up to now read nothing any more.
func (s *source) claim() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost || s.read && !s.keep {
		return false
	}
	s.current = nil
	return true
}

// view returns a body for the next attempt. The views before it read nothing
// any more.
func (s *source) view() *view {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = &view{source: s}
	return s.current
}

// settle lets the source be closed with its current view.
func (s *source) settle() {
	s.mu.Lock()
	s.settled = true
	s.mu.Unlock()
	s.closeIfDone()
}

func (s *source) closeIfDone() {
	s.mu.Lock()
	done := (s.lost || s.settled && s.current == nil) && !s.closed
	s.closed = s.closed || done
	s.mu.Unlock()
	if done {
		s.body.Close()
	}
}

// begin reports whether v is still the current view, and if so notes that the
// body is about to be read.
func (s *source) begin(v *view, read bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != v {
		return false
	}
	s.read = s.read || read
	return true
}

func (s *source) setInRead(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inRead = is
}

// Read reads what earlier attempts have read, then the caller's body. An
// attempt that was given up while it read leaves what it got to the next one,
// if the body is kept.
func (v *view) Read(p []byte) (int, error) {
	s := v.source
	s.reading <- struct{}{}
	defer func() { <-s.reading }()
	switch {
	case !s.begin(v, false):
		return 0, errBodyClosed
	case v.offset < len(s.kept):
		n := copy(p, s.kept[v.offset:])
		v.offset += n
		return n, nil
	case s.err != nil:
		return 0, s.err
	case !s.begin(v, true):
		return 0, errBodyClosed
	}
	s.setInRead(true)
	n, err := s.body.Read(p)
	s.setInRead(false)
	s.err = err
	v.sawRead(err)
	if s.keep {
		s.kept = append(s.kept, p[:n]...)
		v.offset += n
	}
	if !s.begin(v, true) {
		return 0, errBodyClosed
	}
	return n, err
}

// Close ends the attempt's use of the body. If the attempt waits for the caller
// to go on, and no other one will have the body, the stream has ended and its
// server wants no more: the caller's body is closed, as net/http does, which
// ends the wait. A body that is kept may be sent again, once the caller has gone
// on.
func (v *view) Close() error {
	s := v.source
	v.seesClose()
	s.mu.Lock()
	if s.current == v {
		s.current = nil
		s.lost = s.lost || s.inRead && !s.keep
	}
	s.mu.Unlock()
	s.closeIfDone()
	v.sawClose()
	return nil
}
