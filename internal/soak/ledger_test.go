package soak

import (
	"fmt"
	"strings"
	"sync"
)

// requestBudget bounds the requests of a run, and with them the ledger.
const requestBudget = 1 << 22

// breachesKept bounds the breaches that are reported one by one.
const breachesKept = 12

// ledger accounts for the requests on both sides. Of each request it keeps one
// byte for good, and its history while it lasts.
type ledger struct {
	mu       sync.Mutex
	marks    []mark // by request
	last     uint64 // the id of the latest request; ids count from 1
	live     map[uint64]*history
	breaches []string
	broken   int // breaches in all
}

// mark is what is remembered of a request.
type mark uint8

const (
	begun mark = 1 << iota
	ended
	processed
	turnedAway // answered 421 once
	turnedBack // answered 421 again
)

// history is what became of a request so far.
type history struct {
	what     fmt.Stringer
	attempts []*attempt
}

// attempt is the arrival of a request at a server.
type attempt struct {
	number int // from 0
	server string
	conn   int
	stream uint32
	sni    string
	fate   string
}

func newLedger() *ledger {
	return &ledger{marks: make([]mark, requestBudget), live: make(map[uint64]*history)}
}

// begin gives out the id of a request that what describes. It returns 0 when the
// budget is spent.
func (l *ledger) begin(what fmt.Stringer) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last+1 == uint64(len(l.marks)) {
		return 0
	}
	l.last++
	l.marks[l.last] = begun
	l.live[l.last] = &history{what: what}
	return l.last
}

// end notes that the caller has an answer or an error.
func (l *ledger) end(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.marks[id]&ended != 0 {
		l.breachLocked(id, "ended twice")
	}
	l.marks[id] |= ended
	delete(l.live, id)
}

// arrive notes that a request has arrived at a server. It may have ended by
// then, if the caller has given it up.
func (l *ledger) arrive(id uint64, a attempt) *attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.live[id]; h != nil {
		a.number = len(h.attempts)
		h.attempts = append(h.attempts, &a)
	}
	return &a
}

// settle notes what a server does about a request.
func (l *ledger) settle(a *attempt, fate string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.fate += fate + " "
}

// process notes that a server acts on a request: from now on nobody else may,
// unless it can be done again without harm.
func (l *ledger) process(id uint64, a *attempt, idempotent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.fate += "processed "
	if l.marks[id]&processed != 0 && !idempotent {
		l.breachLocked(id, "processed twice")
	}
	l.marks[id] |= processed
}

// misdirect notes that a server answers 421. M1: a request is sent again once.
func (l *ledger) misdirect(id uint64, a *attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.fate += "421 "
	switch {
	case l.marks[id]&turnedAway == 0:
		l.marks[id] |= turnedAway
	case l.marks[id]&turnedBack == 0:
		l.marks[id] |= turnedBack
	default:
		l.breachLocked(id, "answered 421 three times")
	}
}

// unsaid notes that the client has not taken the 421 of an attempt to its end. It
// may have given the attempt up by then, after a GOAWAY for one, and know
// nothing of it; or it has seen that it was a 421, which cannot be told here.
func (l *ledger) unsaid(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.marks[id]&turnedBack != 0 {
		l.marks[id] &^= turnedBack
	} else {
		l.marks[id] &^= turnedAway
	}
}

// known reports whether a request of that id was begun.
func (l *ledger) known(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return 0 < id && id <= l.last
}

// breach notes that something happened which must not. id is the request
// concerned, 0 if it is none in particular.
func (l *ledger) breach(id uint64, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.breachLocked(id, format, args...)
}

func (l *ledger) breachLocked(id uint64, format string, args ...any) {
	l.broken++
	if len(l.breaches) >= breachesKept {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, format, args...)
	if id != 0 {
		fmt.Fprintf(&b, "\n\trequest %d", id)
	}
	if h := l.live[id]; h != nil {
		fmt.Fprintf(&b, ": %v", h.what)
		for _, a := range h.attempts {
			fmt.Fprintf(&b, "\n\tattempt %d at %s, connection %d for %s, stream %d: %s", a.number, a.server, a.conn, a.sni, a.stream, a.fate)
		}
	}
	l.breaches = append(l.breaches, b.String())
}

// unended returns how many requests were begun and have not ended.
func (l *ledger) unended() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.marks[:l.last+1] {
		if m&begun != 0 && m&ended == 0 {
			n++
		}
	}
	return n
}

// takeBreaches returns the breaches since it was called last.
func (l *ledger) takeBreaches() (breaches []string, more int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	breaches, more = l.breaches, l.broken-len(l.breaches)
	l.breaches, l.broken = nil, 0
	return breaches, more
}
