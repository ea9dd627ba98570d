package transport_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A row tells what becomes of each kind of request when it is struck: the words
// are outcome's. Where net/http does something else, that follows behind "/".
// The differences are meant:
//
//   - A POST is not sent again after PROTOCOL_ERROR, since it may have been
//     processed (P6).
//   - What can be asked twice is sent again when its server has fallen silent
//     (P7).
//   - A short body without GetBody is kept, so that it can be sent again (M6).
type row struct {
	at   []point
	by   []end
	want string // in the order of kinds
}

var allEnds = []end{
	cut, silence, refused, protocolError, canceledByIt, internalError,
	goAwayBelow, goAwayErrorBelow, goAwayErrorCut,
}

// TestP6_FaultsAtEveryPoint strikes a request on a connection that has carried
// others.
func TestP6_FaultsAtEveryPoint(t *testing.T) {
	asked := []point{headers, halfSent}
	answered := []point{answering, halfAnswer, allButEnd}
	for _, r := range []row{
		// GET, POST, POST with key, POST kept, POST kept with key, POST not kept
		{[]point{unread}, []end{cut}, "error error error error error error"},
		{[]point{unread}, []end{silence}, "again/error error again/error error again/error error"},

		{asked, []end{cut, goAwayErrorCut}, "error error error error error error"},
		{asked, []end{silence}, "again/error error again/error error again/error error"},
		{asked, []end{refused}, "again again again again/spent again/spent spent"},
		{asked, []end{protocolError}, "again error/again again error/spent again/spent error/spent"},
		{asked, []end{canceledByIt, internalError}, "error error error error error error"},
		{asked, []end{goAwayBelow, goAwayErrorBelow}, "again again again again/spent again/spent spent"},
		{asked, []end{goAwayAt, goAwayError}, "once once once once once once"},

		{answered, allEnds, "part part part part part part"},
		{answered, []end{goAwayAt, goAwayError}, "once once once once once once"},
	} {
		r.run(t, false)
	}
}

// TestP6_FaultsOfTheFirstRequest strikes a request for which the connection was
// dialed.
func TestP6_FaultsOfTheFirstRequest(t *testing.T) {
	for _, r := range []row{
		// Before SETTINGS, too, the request is on its way.
		{[]point{handshake, settings, unread, headers}, []end{cut}, "error error error error error error"},
		{[]point{unread, headers}, []end{goAwayBelow}, "again again again again/spent again/spent spent"},
		// Such a server turns the client away.
		{[]point{unread, headers}, []end{goAwayErrorBelow}, "error error error error error error"},
		{[]point{headers}, []end{refused}, "again again again again/spent again/spent spent"},
		{[]point{headers}, []end{protocolError}, "again error/again again error/spent again/spent error/spent"},
		{[]point{headers}, []end{canceledByIt, internalError, goAwayErrorCut}, "error error error error error error"},
		{[]point{headers}, []end{goAwayAt, goAwayError}, "once once once once once once"},
	} {
		r.run(t, true)
	}
}

// The connection ends before SETTINGS: what waited for them was not on its way,
// and has one more dialed.
func TestP6_WhoWaitsForSettingsIsServedElsewhere(t *testing.T) {
	servers := plain()
	s := servers["127.0.0.1"]
	s.SettingsDelay = 2 * pause
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		post := func(host string) func() (answer, time.Duration) {
			defer synctest.Wait()
			return r.start(r.request(r.t.Context(), http.MethodPost, host, strings.NewReader(upload)))
		}
		sent, waits := post("a.example.com"), post("b.example.com")
		time.Sleep(pause)
		r.Conns()[0].Cut()
		if a, took := sent(); a.err == nil || took != pause {
			t.Errorf("after %v: %+v, want that what was sent is lost", took, a)
		}
		if b, took := waits(); b.conn != "2" || b.err != nil || took != 3*pause {
			t.Errorf("after %v: %+v, want an answer on connection 2 after %v", took, b, 3*pause)
		}
		if n := len(r.Record().Requests()); n != 1 {
			t.Errorf("%d requests arrived, want one", n)
		}
	})
}

func (r row) run(t *testing.T, first bool) {
	for _, at := range r.at {
		for _, by := range r.by {
			r.runKinds(t, at, by, first)
		}
	}
}

func (r row) runKinds(t *testing.T, at point, by end, first bool) {
	words := strings.Fields(r.want)
	for i, k := range kinds {
		if at == halfSent && k.method == http.MethodGet {
			continue
		}
		t.Run(fmt.Sprintf("%v, %s, %s", at, by.name, k.name), func(t *testing.T) {
			expect(t, words[i], func() *fault { return &fault{kind: k, point: at, end: by, first: first} })
		})
	}
}

// expect runs a fault against both transports.
func expect(t *testing.T, want string, script func() *fault) {
	t.Helper()
	f := script()
	o, n := f.play(t, false), script().play(t, true)
	if word, nethttp := cell(want); o.word != word || n.word != nethttp {
		t.Errorf("%+v, net/http: %+v; want %s", o, n, want)
	}
	took := pause
	if f.end.name == silence.name {
		took += gone
	}
	if o.took != took {
		t.Errorf("%s took %v, want %v", o.word, o.took, took)
	}
	if o.word != n.word || o.word == "spent" {
		return
	}
	// P7 adds to the error how silence was found.
	if alike := o.err == n.err || f.end.name == silence.name && strings.HasPrefix(o.err, n.err+": "); !alike {
		t.Errorf("error %q, net/http's %q", o.err, n.err)
	}
}
