//go:build !unix

package main

import "time"

// cpuTime is not measured here: what other systems count in steps of a
// scheduler's tick is too coarse for a few milliseconds.
func cpuTime() (used time.Duration, ok bool) { return 0, false }
