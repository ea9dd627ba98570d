package pool

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// P4: a line is a sorted list of those who stand in it, however they come and go.
func TestP4_WaitList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := make([]*waiter, rapid.IntRange(1, 200).Draw(t, "waiters"))
		for i := range all {
			all[i] = &waiter{seq: uint64(i + 1)}
		}
		var l waitList
		var want []*waiter
		join := func(w *waiter) {
			l.add(w)
			if !slices.Contains(want, w) {
				want = append(slices.Clone(want), w)
				slices.SortFunc(want, func(a, b *waiter) int { return int(a.seq) - int(b.seq) })
			}
		}
		// Mostly they come in order, and leave from the front or anywhere.
		next := 0
		for range rapid.IntRange(0, 400).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "do") {
			case 0, 1:
				if next < len(all) {
					join(all[next])
					next++
				}
			case 2:
				if len(want) > 0 {
					l.remove(want[0])
					want = want[1:]
				}
			case 3:
				w := rapid.SampledFrom(all).Draw(t, "leaves")
				l.remove(w)
				want = slices.DeleteFunc(slices.Clone(want), func(o *waiter) bool { return o == w })
			case 4: // again, or back in its place
				join(rapid.SampledFrom(all).Draw(t, "comes"))
			case 5: // a good part of them
				n := rapid.IntRange(0, len(want)).Draw(t, "n")
				for _, w := range want[:n] {
					l.remove(w)
				}
				want = want[n:]
			}
			if got := l.snapshot(); !slices.Equal(got, want) {
				t.Fatalf("%d in line, want %d", len(got), len(want))
			}
			front := l.front()
			if l.len() != len(want) || (front != nil) != (len(want) > 0) || front != nil && front != want[0] {
				t.Fatalf("len %d, front %v; want %d", l.len(), front, len(want))
			}
			for _, w := range all {
				if l.has(w) != slices.Contains(want, w) {
					t.Fatalf("has(%d) = %t", w.seq, l.has(w))
				}
			}
			if empty := len(l.slots) - l.live; empty > l.live+fewSlots {
				t.Fatalf("%d empty slots beside %d", empty, l.live)
			}
		}
	})
}
