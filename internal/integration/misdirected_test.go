package integration

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/transport"
)

// testMisdirected tests what becomes of the requests that such a server
// misdirects. It starts one for each test.
func testMisdirected(t *testing.T, start func(t *testing.T) *misdirecting) {
	for _, tt := range []struct {
		name string
		test func(*testing.T, *misdirecting, *transport.Transport)
	}{
		{"M1_RetriedOnce", retriedOnce},
		{"M3_Remembered", remembered},
		{"M4_RetriesShareADial", retriesShareADial},
		{"M4_AllAtOnce", allAtOnce},
		{"M6_BodyIsSentAgain", bodyIsSentAgain},
		{"M6_BodyThatCannotBeHadTwice", bodyThatCannotBeHadTwice},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := start(t)
			m.host(addr1, "a", "b", "c")
			tt.test(t, m, m.transport(t))
		})
	}
}

// tally is how many requests there were of each kind: HOST SNI STATUS.
type tally map[string]int

// expect closes the Transport and expects these to be all requests that the
// server has logged, on as many connections. In which order they came, its log
// need not tell. Apache logs some only when the connection has ended.
func (want tally) expect(t *testing.T, m *misdirecting, tr *transport.Transport, connections int) {
	t.Helper()
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	requests := 0
	for _, n := range want {
		requests += n
	}
	got := make(tally)
	lines := m.log(t, requests)
	for _, l := range lines {
		got[fmt.Sprintf("%s %s %d", l.host, l.sni, l.status)]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the server's log, HOST SNI STATUS (-want +got):\n%s", diff)
	}
	if n := conns(lines); n != connections {
		t.Errorf("%d connections, want %d", n, connections)
	}
}

// M1, M2: one retry on a connection of the host's own, where it stays. The
// others stay where they are.
func retriedOnce(t *testing.T, m *misdirecting, tr *transport.Transport) {
	m.get(t, tr, "a", 200)
	m.get(t, tr, "b", 200)
	if s := tr.Stats(); s.Dials != 2 || s.Misdirected != 1 || s.Retried != 1 {
		t.Errorf("%+v, want one retried", s)
	}
	for range 20 {
		for _, name := range []string{"b", "c", "a"} {
			m.get(t, tr, name, 200)
		}
	}
	want, retried := tally{"a a 200": 21, "b a 421": 1, "b b 200": 21}, 1
	if m.strict {
		want["c a 421"], want["c c 200"], retried = 1, 20, 2
	} else {
		want["c a 200"] = 20
	}
	want.expect(t, m, tr, 1+retried)
	if s, n := tr.Stats(), uint64(retried); s.Dials != 1+n || s.Misdirected != n || s.Retried != n {
		t.Errorf("%+v, want %d retried", s, n)
	}
}

// M3: the 421 is remembered beyond the connections that it concerned.
func remembered(t *testing.T, m *misdirecting, tr *transport.Transport) {
	for range 3 {
		m.get(t, tr, "a", 200)
		m.get(t, tr, "b", 200)
		tr.CloseIdleConnections()
	}
	tally{"a a 200": 3, "b a 421": 1, "b b 200": 3}.expect(t, m, tr, 6)
}

// M4: of the requests that come before the first answer each may be answered
// 421, and is sent again on the one connection of the host's own.
func retriesShareADial(t *testing.T, m *misdirecting, tr *transport.Transport) {
	m.get(t, tr, "a", 200)
	m.burst(t, tr, 8, []string{"b"})
	retried := int(tr.Stats().Retried)
	if retried < 1 || retried > 8 {
		t.Errorf("%d requests were sent again, want 1 to 8", retried)
	}
	m.burst(t, tr, 8, []string{"b"})
	tally{"a a 200": 1, "b a 421": retried, "b b 200": 16}.expect(t, m, tr, 2)
}

// M4, P2: whichever host is dialed first, the others wait for it, and those
// that it does not serve go on by themselves.
func allAtOnce(t *testing.T, m *misdirecting, tr *transport.Transport) {
	names := []string{"a", "b", "c"}
	m.burst(t, tr, 24, names)
	first := tr.Stats()
	if first.Dials > 3 || first.Misdirected != first.Retried {
		t.Errorf("%+v; want one dial for each host at most", first)
	}
	m.burst(t, tr, 24, names)
	if then := tr.Stats(); then.Dials != first.Dials || then.Misdirected != first.Misdirected {
		t.Errorf("after the first requests %+v, then %+v", first, then)
	}
	_ = tr.Close()
	lines := m.log(t, 48+int(first.Misdirected))
	for _, name := range names {
		if got := count(lines, name, 200); got != 16 {
			t.Errorf("%d answers 200 for %s, want 16", got, name)
		}
	}
}

// payload is more than a server takes before it answers 421.
var payload = strings.Repeat("0123456789", 20_000)

// M6, M7: the body is sent again and arrives whole, and the connection on which
// it was not wanted stays in use.
func bodyIsSentAgain(t *testing.T, m *misdirecting, tr *transport.Transport) {
	m.get(t, tr, "a", 200)
	status, body, err := fetch(tr, http.MethodPost, m.url("b"), payload)
	if err != nil || status != 200 || !strings.Contains(body, digest(payload)) {
		t.Fatalf("status %d, body %q, error %v; want %s", status, body, err, digest(payload))
	}
	m.get(t, tr, "a", 200)
	tally{"a a 200": 2, "b a 421": 1, "b b 200": 1}.expect(t, m, tr, 2)
}

// M6: a body that could not be sent again is not put at risk.
func bodyThatCannotBeHadTwice(t *testing.T, m *misdirecting, tr *transport.Transport) {
	m.get(t, tr, "a", 200)
	req, err := http.NewRequest(http.MethodPost, m.url("b"), struct{ io.Reader }{strings.NewReader(payload)})
	if err != nil {
		t.Fatal(err)
	}
	status, body, err := send(tr, req)
	if err != nil || status != 200 || !strings.Contains(body, digest(payload)) {
		t.Fatalf("status %d, body %q, error %v; want %s", status, body, err, digest(payload))
	}
	m.get(t, tr, "b", 200)
	tally{"a a 200": 1, "b b 200": 2}.expect(t, m, tr, 2)
}
