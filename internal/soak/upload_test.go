package soak

import (
	"io"
	"sync/atomic"
	"time"
)

// uploads counts the bodies of requests that have yet to be closed.
type uploads struct {
	ledger *ledger
	open   atomic.Int64
}

// upload is the body of a request.
type upload struct {
	*stretch
	id      uint64
	uploads *uploads
	wait    time.Duration // before each read
	once    bool          // it is the caller's own, not one of GetBody's
	reading atomic.Bool
	closed  atomic.Bool
}

func (u *uploads) new(id uint64, s *stretch, wait time.Duration, once bool) *upload {
	u.open.Add(1)
	return &upload{stretch: s, id: id, uploads: u, wait: wait, once: once}
}

func (b *upload) Read(p []byte) (int, error) {
	if !b.reading.CompareAndSwap(false, true) {
		b.uploads.ledger.breach(b.id, "the body is read by two at once")
		return 0, io.ErrNoProgress
	}
	defer b.reading.Store(false)
	if b.wait > 0 {
		time.Sleep(b.wait) // the caller is slow
		p = p[:min(len(p), chunk)]
	}
	return b.stretch.Read(p)
}

// Close may be called more than once, as net/http's callers know, but source
// promises to call it once.
func (b *upload) Close() error {
	if b.closed.CompareAndSwap(false, true) {
		b.uploads.open.Add(-1)
	} else if b.once {
		b.uploads.ledger.breach(b.id, "the caller's body is closed twice")
	}
	return nil
}
