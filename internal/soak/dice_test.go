package soak

import (
	"context"
	"math/rand/v2"
	"time"
)

// dice makes decisions. Each goroutine, and each attempt of a request at a
// server, has dice of its own, all from the one seed.
type dice struct{ *rand.Rand }

// roll returns the dice of a purpose. The multiplier spreads purposes that are
// small numbers (it is 2^64 divided by the golden ratio).
func roll(seed uint64, purpose ...uint64) dice {
	h := seed
	for _, p := range purpose {
		h = (h ^ p) * 0x9e3779b97f4a7c15
	}
	return dice{rand.New(rand.NewPCG(seed, h))}
}

// chance is true that many times in a hundred.
func (d dice) chance(percent float64) bool { return d.Float64()*100 < percent }

// upTo returns a duration between nothing and limit.
func (d dice) upTo(limit time.Duration) time.Duration {
	return time.Duration(d.Int64N(int64(limit) + 1))
}

// pick returns one of several choices.
func pick[T any](d dice, choices ...T) T { return choices[d.IntN(len(choices))] }

// pause lets time pass, as a part of the workload. It reports whether ctx has
// not ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
