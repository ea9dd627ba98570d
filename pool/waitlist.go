package pool

import (
	"cmp"
	"iter"
	"slices"
)

// waitList is a line of waiters in the order of their seq. Thousands may stand
// in hundreds of lines each, so to leave one costs no more than to find the
// place: it stays there empty until many are.
type waitList struct {
	slots []slot // in order; none before head has a waiter, the one at head does
	head  int
	live  int // slots with a waiter
}

// slot is a place in a line; w is nil if its waiter has left.
type slot struct {
	seq uint64
	w   *waiter
}

// fewSlots is for how many empty slots it is not worth while to close ranks.
const fewSlots = 32

func (l *waitList) len() int { return l.live }

// front returns the first in line; nil if there is none.
func (l *waitList) front() *waiter {
	if l.live == 0 {
		return nil
	}
	return l.slots[l.head].w
}

// all yields the line, which must not be changed meanwhile.
func (l *waitList) all() iter.Seq[*waiter] {
	return func(yield func(*waiter) bool) {
		for _, s := range l.slots[l.head:] {
			if s.w != nil && !yield(s.w) {
				return
			}
		}
	}
}

// snapshot returns the line as it stands, for loops that change it.
func (l *waitList) snapshot() []*waiter {
	return slices.AppendSeq(make([]*waiter, 0, l.live), l.all())
}

// place returns where w's slot is, or would be.
func (l *waitList) place(w *waiter) (int, bool) {
	return slices.BinarySearchFunc(l.slots, w.seq, func(s slot, seq uint64) int { return cmp.Compare(s.seq, seq) })
}

// before reports whether somebody in the line comes before w.
func (l *waitList) before(w *waiter) bool {
	first := l.front()
	return first != nil && first.seq < w.seq
}

func (l *waitList) has(w *waiter) bool {
	i, found := l.place(w)
	return found && l.slots[i].w != nil
}

func (l *waitList) add(w *waiter) {
	i, found := l.place(w)
	switch {
	case found && l.slots[i].w != nil:
		return
	case found:
		l.slots[i].w = w
	case i > 0 && l.slots[i-1].w == nil: // an empty slot will do
		i--
		l.slots[i] = slot{w.seq, w}
	default:
		l.slots = slices.Insert(l.slots, i, slot{w.seq, w})
	}
	if l.live++; l.live == 1 || i < l.head {
		l.head = i
	}
}

func (l *waitList) remove(w *waiter) {
	i, found := l.place(w)
	if !found || l.slots[i].w == nil {
		return
	}
	l.slots[i].w = nil
	l.live--
	switch empty := len(l.slots) - l.live; {
	case l.live == 0:
		*l = waitList{}
	case empty > l.live+fewSlots:
		l.slots = slices.DeleteFunc(l.slots, func(s slot) bool { return s.w == nil })
		l.head = 0
	default:
		for l.slots[l.head].w == nil {
			l.head++
		}
	}
}
