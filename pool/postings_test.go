package pool

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// P1: postings are what a map of lists would be, and nothing once all have left.
func TestP1_Postings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		certs := []*certificate{{count: 1}, {count: 2}, {count: 3}}
		want := make(map[string][]*certificate)
		var x postings[string]
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			k := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
			c := rapid.SampledFrom(certs).Draw(t, "certificate")
			if i := slices.Index(want[k], c); i < 0 {
				x.enter(k, c)
				want[k] = append(want[k], c)
			} else {
				x.leave(k, c)
				want[k] = slices.Delete(want[k], i, i+1)
			}
			for _, k := range []string{"a", "b", "c"} {
				var got []*certificate
				if first, rest := x.of(k); first != nil {
					got = append([]*certificate{first}, rest...)
				}
				if !slices.Equal(got, want[k]) {
					t.Fatalf("%s: %v, want %v", k, got, want[k])
				}
			}
		}
		for k, list := range want {
			for _, c := range slices.Clone(list) {
				x.leave(k, c)
			}
		}
		if x.first != nil || x.rest != nil {
			t.Fatalf("left over: %+v", x)
		}
	})
}

// P1: a list that is being iterated stays whole.
func TestP1_PostingsDuringIteration(t *testing.T) {
	var x postings[string]
	certs := []*certificate{{count: 1}, {count: 2}, {count: 3}}
	for _, c := range certs {
		x.enter("a", c)
	}
	first, rest := x.of("a")
	for _, c := range certs {
		x.leave("a", c)
	}
	if got := append([]*certificate{first}, rest...); !slices.Equal(got, certs) {
		t.Errorf("the list has changed: %v", got)
	}
}
