package soak

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// totals counts what happened, by section and kind.
type totals struct {
	mu       sync.Mutex
	sections map[section]map[string]int
	slowest  time.Duration // of the requests
	slow     fmt.Stringer  // the request that was
}

// section is a part of the table, in the order in which they are printed.
type section int

const (
	sectionOutcomes section = iota
	sectionMisdirected
	sectionFaults
	sectionServers
	sectionTransport
	sections
)

func (s section) String() string {
	return [...]string{"requests by outcome", "421s as the callers' traces tell", "faults injected", "seen by the servers", "said by Transport.Stats"}[s]
}

func newTotals() *totals {
	t := &totals{sections: make(map[section]map[string]int)}
	for s := range sections {
		t.sections[s] = make(map[string]int)
	}
	return t
}

func (t *totals) count(s section, kind string) { t.add(s, kind, 1) }

func (t *totals) add(s section, kind string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sections[s][kind] += n
}

func (t *totals) of(s section, kind string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sections[s][kind]
}

func (t *totals) sum(s section) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.sections[s] {
		n += k
	}
	return n
}

// took notes how long a request took, until its answer was read or given up.
func (t *totals) took(d time.Duration, what fmt.Stringer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d > t.slowest {
		t.slowest, t.slow = d, what
	}
}

// Write counts the lines of the standard logger, on which net/http complains.
func (t *totals) Write(p []byte) (int, error) {
	t.count(sectionTransport, "lines logged by net/http")
	return len(p), nil
}

// table returns the totals of a run whose load lasted for d.
func (t *totals) table(title string, d time.Duration) string {
	var b strings.Builder
	requests := t.sum(sectionOutcomes)
	fmt.Fprintf(&b, "%s\n%d requests in %.1f s: %.0f requests/s\n", title, requests, d.Seconds(), float64(requests)/d.Seconds())
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(&b, "slowest: %.1f s, %v\n", t.slowest.Seconds(), t.slow)
	for s := range sections {
		kinds := t.sections[s]
		fmt.Fprintf(&b, "%v\n", s)
		byCount := func(a, b string) int { return cmp.Or(cmp.Compare(kinds[b], kinds[a]), cmp.Compare(a, b)) }
		for _, kind := range slices.SortedFunc(maps.Keys(kinds), byCount) {
			fmt.Fprintf(&b, "%10d  %s\n", kinds[kind], kind)
		}
	}
	return b.String()
}
