package dial_test

import (
	"bytes"
	"crypto/tls"
	"maps"
	"slices"
	"sync"
	"testing"
)

// A store is a user's session cache that keeps bytes, as on a disk, and has an
// entry of its own in each session's Extra.
type store struct {
	t      testing.TB
	mu     sync.Mutex // guards stored
	stored map[string]saved
}

type saved struct{ ticket, state []byte }

const stamp = "the user's entry"

func newStore(t testing.TB) *store { return &store{t: t, stored: make(map[string]saved)} }

func (s *store) Put(key string, cs *tls.ClientSessionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cs == nil {
		delete(s.stored, key)
		return
	}
	ticket, state, err := cs.ResumptionState()
	if err != nil {
		s.t.Error(err)
		return
	}
	state.Extra = append(state.Extra, []byte(stamp))
	b, err := state.Bytes()
	if err != nil {
		s.t.Error(err)
		return
	}
	s.stored[key] = saved{bytes.Clone(ticket), b}
}

func (s *store) Get(key string) (*tls.ClientSessionState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	got, ok := s.stored[key]
	if !ok {
		return nil, false
	}
	state, err := tls.ParseSessionState(got.state)
	if err != nil {
		s.t.Error(err)
		return nil, false
	}
	if n := count(state.Extra, stamp); n != 1 {
		s.t.Errorf("Extra %q has the user's entry %d times", state.Extra, n)
	}
	cs, err := tls.NewResumptionState(got.ticket, state)
	if err != nil {
		s.t.Error(err)
	}
	return cs, err == nil
}

// Keys returns the keys of what is stored, in order.
func (s *store) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.stored))
}

func count(extra [][]byte, entry string) int {
	n := 0
	for _, e := range extra {
		if string(e) == entry {
			n++
		}
	}
	return n
}

// cacheFuncs is a session cache made of functions.
type cacheFuncs struct {
	get func(key string) (*tls.ClientSessionState, bool)
	put func(key string, cs *tls.ClientSessionState)
}

func (c cacheFuncs) Get(key string) (*tls.ClientSessionState, bool) { return c.get(key) }
func (c cacheFuncs) Put(key string, cs *tls.ClientSessionState)     { c.put(key, cs) }
