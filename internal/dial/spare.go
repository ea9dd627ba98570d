package dial

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

// A Spare is a connection that Dial has made and that another Dial for the same
// target is to use: one that turned out to be another party's. It is safe for
// concurrent use.
type Spare struct {
	target Target

	mu     sync.Mutex
	result *Result // nil once used
}

// NewSpare returns a Spare for the next Dial to t, whose result is r.
func NewSpare(t Target, r *Result) *Spare { return &Spare{target: t, result: r} }

// Close closes the connection if no Dial has used it.
func (s *Spare) Close() {
	if r := s.take(); r != nil {
		r.Conn.Close()
	}
}

func (s *Spare) take() *Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.result
	s.result = nil
	return r
}

type spareKey struct{}

// WithSpare returns a context in which Dial to the target of s uses its
// connection, and until it does Resolve has the addresses that were looked up
// for it. Nothing of it is told to httptrace again.
func WithSpare(ctx context.Context, s *Spare) context.Context {
	return context.WithValue(ctx, spareKey{}, s)
}

// spareFor returns what ctx has in store for t, and takes it.
func spareFor(ctx context.Context, t *Target) *Result {
	s, ok := ctx.Value(spareKey{}).(*Spare)
	if !ok || s.target.Host != t.Host || s.target.Port != t.Port || s.target.Partition != t.Partition ||
		!slices.Equal(s.target.Protos, t.Protos) {
		return nil
	}
	return s.take()
}

// spareAddrs returns the addresses of host as they were looked up for the Spare
// in ctx, if there is one for host that was not used yet.
func spareAddrs(ctx context.Context, host string) []netip.Addr {
	s, ok := ctx.Value(spareKey{}).(*Spare)
	if !ok || s.target.Host != host {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.result == nil {
		return nil
	}
	return s.target.Addrs
}
