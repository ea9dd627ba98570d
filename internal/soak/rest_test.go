package soak

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/h2coalesce/h2coalesce/transport"
)

// checkRest looks whether all that the requests have used is given back, first
// with the connections open, then with them closed.
func (r *run) checkRest(t *testing.T) {
	t.Helper()
	eventually(t, func() string {
		switch s := r.tr.Stats(); {
		case s.Streams != 0 || s.Waiting != 0:
			return fmt.Sprintf("%d streams are taken and %d requests wait for one, though all have ended", s.Streams, s.Waiting)
		case r.world.serving.Load() != 0:
			return fmt.Sprintf("%d requests are still at the servers", r.world.serving.Load())
		case r.world.uploads.open.Load() != 0:
			return fmt.Sprintf("%d bodies of requests are not closed", r.world.uploads.open.Load())
		}
		return ""
	})
	if n := r.world.ledger.unended(); n != 0 {
		t.Errorf("%d requests have not ended", n)
	}
	eventually(t, func() string {
		r.tr.CloseIdleConnections() // again, for dials that have just ended
		if n := r.tr.Stats().Conns; n != 0 {
			return fmt.Sprintf("%d connections are open after CloseIdleConnections: %+v", n, r.tr.Conns())
		}
		return r.unclosed()
	})
	r.harvest(t)
}

// unclosed tells which connections are open on the servers' side.
func (r *run) unclosed() string {
	open := r.world.Conns()
	if len(open) == 0 {
		return ""
	}
	return fmt.Sprintf("the servers have %d open connections, the oldest from %v to %v", len(open), open[0].RemoteAddr(), open[0].LocalAddr())
}

// harvest takes in what the lab has recorded of the connections, none of which
// is open, and has it forget them.
func (r *run) harvest(t *testing.T) {
	t.Helper()
	record, totals := r.world.Record(), r.world.totals
	for _, c := range record.Conns() {
		switch {
		case c.Handshake != nil:
			totals.count(sectionServers, "handshakes failed")
		case c.Proto == "":
			totals.count(sectionServers, "connections closed before their handshake")
		default:
			totals.count(sectionServers, "handshakes, "+c.Proto)
		}
		if c.Resumed {
			totals.count(sectionServers, "sessions resumed")
		}
		totals.add(sectionServers, "requests above a stream limit just lowered, refused", c.Refused)
		totals.add(sectionServers, "requests after GOAWAY, ignored", c.Ignored)
		totals.add(sectionServers, "requests accepted", c.Requests)
		if c.Overshoot > 0 {
			t.Errorf("P4: %d requests above the stream limit on connection %d for %s to %s", c.Overshoot, c.ID, c.SNI, c.LocalAddr)
		}
	}
	record.Reset()
	r.world.Resolver().Reset()
}

// report fails the test for what has gone wrong meanwhile.
func (r *run) report(t *testing.T) {
	t.Helper()
	breaches, more := r.world.ledger.takeBreaches()
	for _, b := range breaches {
		t.Error(b)
	}
	if more > 0 {
		t.Errorf("and %d more", more)
	}
}

// checkSense looks whether the run has tested anything.
func (r *run) checkSense(t *testing.T) {
	t.Helper()
	all, ok := r.world.totals.sum(sectionOutcomes), r.world.totals.of(sectionOutcomes, "200")
	if ok < all/2 {
		t.Errorf("%d of %d requests were answered", ok, all)
	}
	if s := r.tr.Stats(); s.Shared == 0 || s.Retried == 0 || s.Reused == 0 || s.Misdirected == 0 {
		t.Errorf("nothing was shared, or no 421 was seen: %+v", s)
	}
}

// countStats puts the transport's own counts into the totals.
func (r *run) countStats() {
	s := r.tr.Stats()
	for kind, n := range map[string]uint64{
		"dials": s.Dials, "dials failed": s.DialErrors, "requests on open own connections": s.Reused,
		"requests on other hosts' connections": s.Shared, "which waited for their handshakes": s.Joined,
		"421s": s.Misdirected, "421s sent again": s.Retried, "connections evicted": s.Evicted,
	} {
		r.world.totals.add(sectionTransport, kind, int(n))
	}
}

// checkClosed looks whether Close is final.
func (r *run) checkClosed(t *testing.T) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, r.world.URL(r.world.hosts[0].name, "/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.tr.RoundTrip(req); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("RoundTrip after Close: %v, want ErrClosed", err)
	}
}

// title says what the totals are of.
func (r *run) title() string {
	match, veto := "MatchAddress", ""
	if r.world.byOrigin {
		match = "MatchOrigin"
	}
	if r.world.vetoes {
		veto = ", Allow"
	}
	return fmt.Sprintf("soak with seed %d: %d hosts, %d servers, %d workers, %s%s", r.world.seed, len(r.world.hosts), len(r.world.servers), workers, match, veto)
}
