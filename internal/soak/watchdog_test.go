package soak

import (
	"context"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

const (
	// patience is how long a request may take. None is slow by more than a
	// few seconds, even when servers refuse it several times.
	patience = 30 * time.Second

	// restWithin is how long all that has been left behind may take to end.
	restWithin = 15 * time.Second

	pollEvery = 10 * time.Millisecond
)

// watch fails the test if a request is stuck, shows where all goroutines are,
// and ends the round. The function that it returns ends the watch.
func (r *run) watch(t *testing.T, ws []*worker, cancel context.CancelFunc) (stop func()) {
	ctx, stopWatch := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends when stopWatch is called
		defer close(done)
		for pause(ctx, time.Second) {
			for _, w := range ws {
				u := w.under.Load()
				if u == nil || time.Since(u.since) < patience || r.stopped.Load() {
					continue
				}
				r.stopped.Store(true)
				t.Errorf("stuck for %v: request %d, %v\n%s", time.Since(u.since), u.id, u.request, goroutines())
				r.world.ledger.breach(u.id, "stuck")
				cancel()
			}
		}
	}()
	return func() {
		stopWatch()
		<-done
	}
}

// within fails the test at once if f takes too long.
func within(t *testing.T, limit time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { // ends with f
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s takes more than %v\n%s", what, limit, goroutines())
	}
}

// eventually fails the test if f does not return "" after a while. What it
// returns then says what is wrong.
func eventually(t *testing.T, f func() string) {
	t.Helper()
	for deadline := time.Now().Add(restWithin); ; {
		wrong := f()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s after %v\n%s", wrong, restWithin, goroutines())
			return
		}
		time.Sleep(pollEvery)
	}
}

// goroutines returns the stacks of all goroutines, equal ones once.
func goroutines() string {
	var b strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1) // a strings.Builder does not fail
	return b.String()
}
