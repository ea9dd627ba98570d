package integration

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

func TestNginx_SecondHostIsShared(t *testing.T) {
	n := startNginx(t, "")
	n.host(addr1, "a", "c")
	tr := n.transport(t)
	for _, name := range []string{"a", "c", "a"} {
		n.get(t, tr, name, 200)
	}

	lines := n.log(t, 3)
	conn := lines[0].conn
	want := []logged{
		{conn, 1, addr1, "a", "a", "GET", 200},
		{conn, 2, addr1, "a", "c", "GET", 200},
		{conn, 3, addr1, "a", "a", "GET", 200},
	}
	if diff := cmp.Diff(want, lines, cmp.AllowUnexported(logged{})); diff != "" {
		t.Errorf("nginx's log (-want +got):\n%s", diff)
	}
	if s := tr.Stats(); s.Dials != 1 || s.Conns != 1 || s.Shared != 1 || s.Reused != 1 || s.Misdirected != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNginx_OtherAddressIsNotShared(t *testing.T) {
	n := startNginx(t, "")
	n.host(addr1, "a")
	n.host(addr2, "c")
	for match, want := range map[coalesce.Match]uint64{coalesce.MatchAddress: 2, coalesce.MatchCertificate: 1} {
		tr := n.matching(t, match)
		n.get(t, tr, "a", 200)
		n.get(t, tr, "c", 200)
		if s := tr.Stats(); s.Dials != want || s.Shared != 2-want {
			t.Errorf("%v: %d dials, %d shared; want %d, %d", match, s.Dials, s.Shared, want, 2-want)
		}
	}
}

// M1, M2: one retry on a connection of the host's own, the others stay, and
// what was learned keeps later requests from being misdirected.
func TestNginx_MisdirectedIsRetriedOnce(t *testing.T) {
	n := startNginx(t, "")
	n.host(addr1, "a", "b", "c")
	tr := n.transport(t)
	n.get(t, tr, "a", 200)
	n.get(t, tr, "b", 200)

	lines := n.log(t, 3)
	first, second := lines[0].conn, lines[2].conn
	want := []logged{
		{first, 1, addr1, "a", "a", "GET", 200},
		{first, 2, addr1, "a", "b", "GET", 421},
		{second, 1, addr1, "b", "b", "GET", 200},
	}
	if diff := cmp.Diff(want, lines, cmp.AllowUnexported(logged{})); diff != "" || first == second {
		t.Errorf("nginx's log (-want +got):\n%s", diff)
	}

	for range 10 {
		n.get(t, tr, "b", 200)
		n.get(t, tr, "c", 200)
		n.get(t, tr, "a", 200)
	}
	lines = n.log(t, 33)
	if got := count(lines, "b", 421); got != 1 {
		t.Errorf("%d answers 421 for b, want 1", got)
	}
	if got := conns(lines); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
	for _, l := range lines[3:] {
		if want := map[string]int{"a": first, "b": second, "c": first}[l.host]; l.conn != want {
			t.Errorf("%v, want connection %d", l, want)
		}
	}
	if s := tr.Stats(); s.Dials != 2 || s.Misdirected != 1 || s.Retried != 1 {
		t.Errorf("%+v", s)
	}
}

// M3: the 421 is remembered beyond the connections that it concerned.
func TestNginx_MisdirectedIsRemembered(t *testing.T) {
	n := startNginx(t, "")
	n.host(addr1, "a", "b")
	tr := n.transport(t)
	for range 3 {
		n.get(t, tr, "a", 200)
		n.get(t, tr, "b", 200)
		tr.CloseIdleConnections()
	}
	lines := n.log(t, 7)
	if got := count(lines, "b", 421); got != 1 {
		t.Errorf("%d answers 421 for b, want 1", got)
	}
	if got := conns(lines); got != 6 {
		t.Errorf("%d connections, want 6", got)
	}
}

// M6: a body is sent again.
func TestNginx_MisdirectedPostIsReplayed(t *testing.T) {
	n := startNginx(t, "")
	n.host(addr1, "a", "b")
	tr := n.transport(t)
	n.get(t, tr, "a", 200)
	status, body, err := fetch(tr, http.MethodPost, n.url("b"), strings.Repeat("x", 10_000))
	if err != nil || status != 200 {
		t.Fatalf("status %d, body %q, error %v", status, body, err)
	}
	lines := n.log(t, 3)
	if l := lines[1]; l.method != "POST" || l.status != 421 {
		t.Errorf("second request: %v", l)
	}
	if l := lines[2]; l.method != "POST" || l.status != 200 || l.sni != "b" {
		t.Errorf("third request: %v", l)
	}
}

// M5: a host that no connection of is served costs one dial, not one for each
// request, and the caller sees what the server says.
func TestNginx_AlwaysMisdirectedReachesTheCaller(t *testing.T) {
	n := startNginx(t, "")
	n.host(addr1, "a", "nobody")
	tr := n.transport(t)
	n.get(t, tr, "a", 200)
	for range 10 {
		n.get(t, tr, "nobody", 421)
	}
	lines := n.log(t, 12)
	if got := conns(lines); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
	if got := count(lines, "nobody", 421); got != 11 {
		t.Errorf("%d answers 421, want 11: ten requests, of which the first was sent twice", got)
	}
}

// P6: nginx announces the end of a connection by GOAWAY when it has served its
// number of requests, and ignores what was sent meanwhile.
func TestNginx_GoAwayLosesNoRequest(t *testing.T) {
	n := startNginx(t, "keepalive_requests 5;")
	n.host(addr1, "a", "c")
	tr := n.transport(t)
	for i := range 12 {
		n.get(t, tr, []string{"a", "c"}[i%2], 200)
	}
	for range 2 {
		n.burst(t, tr, 12, []string{"a", "c"})
	}
	lines := n.log(t, 36)
	for _, l := range lines {
		if l.nth > 5 || l.status != 200 {
			t.Errorf("request %d of its connection: %v", l.nth, l)
		}
	}
	if got := conns(lines); got < 8 {
		t.Errorf("%d connections, want 8 or more for 36 requests", got)
	}
	if s := tr.Stats(); s.Shared == 0 || s.Misdirected != 0 || s.Streams != 0 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// P4: the server's limit on streams is kept to, and what exceeds it waits or
// goes on another connection.
func TestNginx_StreamLimitFailsNoRequest(t *testing.T) {
	n := startNginx(t, "http2_max_concurrent_streams 4;")
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprintf("h%d", i))
	}
	n.host(addr1, names...)
	tr := n.transport(t)
	n.burst(t, tr, 40, names)

	lines := n.log(t, 40)
	if got := conns(lines); got > 10 {
		t.Errorf("%d connections, want no more than the 10 that 40 streams need", got)
	}
	for _, l := range lines {
		if l.status != 200 {
			t.Error(l)
		}
	}
	if s := tr.Stats(); s.Shared == 0 || s.Dials > 10 || s.Streams != 0 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// A reload ends the worker that has the connections: they are given up and
// dialed anew, and the hosts share again.
func TestNginx_ReloadIsNoticed(t *testing.T) {
	n := startNginx(t, "")
	n.host(addr1, "a", "c")
	tr := n.transport(t)
	n.get(t, tr, "a", 200)
	n.get(t, tr, "c", 200)

	n.process.signal(t, syscall.SIGHUP)
	eventually(t, func() error {
		for _, c := range tr.Conns() {
			if !c.Draining {
				return fmt.Errorf("connection %d is still in use", c.ID)
			}
		}
		return nil
	})
	n.get(t, tr, "c", 200)
	n.get(t, tr, "a", 200)
	lines := n.log(t, 4)
	if lines[2].conn == lines[1].conn || lines[3].conn != lines[2].conn || lines[3].sni != "c" {
		t.Errorf("after the reload: %v", lines[2:])
	}
	if s := tr.Stats(); s.Dials != 2 || s.Shared != 2 {
		t.Errorf("%+v", s)
	}
}
