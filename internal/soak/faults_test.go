package soak

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"
)

// errLookup is what look-ups fail with that are made to.
var errLookup = errors.New("soak: look-up made to fail")

// faults makes things go wrong, one after the other.
type faults struct {
	*run
	dice dice
	undo []undo // in the order of their time
}

// undo ends a fault that lasts for a while.
type undo struct {
	at time.Time
	do func()
}

// fault is a kind of fault.
type fault struct {
	name   string
	weight int
	do     func(*faults) bool // false: it did not come to pass
}

// faultEvery is the mean time between faults.
const faultEvery = 15 * time.Millisecond

// inject makes things go wrong until ctx ends, and then sets right what can be.
func (f *faults) inject(ctx context.Context) {
	var kinds []fault
	all := slices.Concat(connFaults(), worldFaults())
	if f.world.rough.Load() {
		all = append(all, roughFaults()...)
	}
	for _, k := range all {
		for range k.weight {
			kinds = append(kinds, k)
		}
	}
	for pause(ctx, f.dice.upTo(2*faultEvery)) {
		f.undoUntil(time.Now())
		if k := pick(f.dice, kinds...); k.do(f) {
			f.world.totals.count(sectionFaults, k.name)
		}
	}
	f.undoUntil(time.Now().Add(time.Hour))
	f.tr.SetLimits(f.limits)
}

// later has something done when a while has passed.
func (f *faults) later(d time.Duration, do func()) {
	f.undo = append(f.undo, undo{time.Now().Add(d), do})
	slices.SortStableFunc(f.undo, func(a, b undo) int { return a.at.Compare(b.at) })
}

func (f *faults) undoUntil(t time.Time) {
	for len(f.undo) > 0 && !f.undo[0].at.After(t) {
		u := f.undo[0]
		f.undo = f.undo[1:]
		u.do()
	}
}

// host returns any host that is served somewhere.
func (f *faults) host() *host {
	for {
		if h := pick(f.dice, f.world.hosts...); !h.stray {
			return h
		}
	}
}

// turnings returns how often which turning comes: most 421s should come from
// connections of other hosts.
func turnings() []turning {
	return []turning{
		turnsNone, turnsNone, turnsNone, turnsNone, turnsNone, turnsNone, turnsNone,
		turnsOthers, turnsOthers, turnsOthers, turnsOthers, turnsOthers,
		turnsSome, turnsAll,
	}
}

// worldFaults are those that concern no connection in particular.
func worldFaults() []fault {
	return []fault{
		{"421 script changed", 12, func(f *faults) bool {
			f.host().turns.Store(int32(pick(f.dice, turnings()...)))
			return true
		}},
		{"DNS moved", 12, (*faults).move},
		{"DNS failing", 2, func(f *faults) bool {
			h := f.host()
			f.world.Resolver().SetError(h.name, &net.DNSError{Err: errLookup.Error(), UnwrapErr: errLookup, Name: h.name, IsTemporary: true})
			f.later(f.dice.upTo(300*time.Millisecond), func() { f.world.Host(h.name, h.homes[0].ip) })
			return true
		}},
		{"DNS slow", 1, func(f *faults) bool {
			f.world.Resolver().SetDelay(f.dice.upTo(40 * time.Millisecond))
			f.later(f.dice.upTo(300*time.Millisecond), func() { f.world.Resolver().SetDelay(0) })
			return true
		}},
		{"server slow", 2, func(f *faults) bool {
			s := pick(f.dice, f.world.servers...)
			s.slow.Store(int64(f.dice.upTo(60 * time.Millisecond)))
			f.later(f.dice.upTo(300*time.Millisecond), func() { s.slow.Store(0) })
			return true
		}},
		{"limits changed", 2, (*faults).changeLimits},
		{"CloseIdleConnections", 2, func(f *faults) bool {
			f.tr.CloseIdleConnections()
			return true
		}},
		{"Explain and Conns asked", 2, (*faults).ask},
	}
}

// move changes where a host is, as far as DNS knows.
func (f *faults) move() bool {
	h := f.host()
	if len(h.homes) == 1 {
		return false
	}
	var ips []string
	if f.dice.chance(10) {
		ips = append(ips, "127.0.0.99") // nobody is there, so the next one is dialed
	}
	first := f.dice.IntN(len(h.homes))
	ips = append(ips, h.homes[first].ip)
	if f.dice.chance(20) {
		ips = append(ips, h.homes[(first+1)%len(h.homes)].ip)
	}
	f.world.Host(h.name, ips...)
	return true
}

// changeLimits changes the transport's limits for a while.
func (f *faults) changeLimits() bool {
	l := f.limits
	for range 2 {
		switch f.dice.IntN(7) {
		case 0:
			l.MaxConns = pick(f.dice, 4, 12, 40)
		case 1:
			l.MaxConnsPerHost = pick(f.dice, 1, 2)
		case 2:
			l.MaxStreamsPerConn = pick(f.dice, 1, 4, 20)
		case 3:
			l.MaxHostsPerConn = pick(f.dice, 1, 2, 10)
		case 4:
			l.IdleTimeout = pick(f.dice, time.Millisecond, 20*time.Millisecond, 200*time.Millisecond)
		case 5:
			l.MaxAge = pick(f.dice, 20*time.Millisecond, 200*time.Millisecond, 2*time.Second)
		case 6:
			l.MaxIdleConns = pick(f.dice, 1, 5)
		}
	}
	f.tr.SetLimits(l)
	f.later(f.dice.upTo(600*time.Millisecond), func() { f.tr.SetLimits(f.limits) })
	return true
}

// ask has the transport tell about itself, at a bad moment.
func (f *faults) ask() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	h := f.host()
	if d, err := f.tr.Explain(ctx, f.world.URL(h.name, "/")); err == nil && d.Host != h.name {
		f.world.ledger.breach(0, "Explain of %s: %+v", h.name, d)
	}
	for _, c := range f.tr.Conns() {
		if c.Streams < 0 || c.Host == "" {
			f.world.ledger.breach(0, "Conns: %+v", c)
		}
	}
	return true
}
