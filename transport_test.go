// Package h2coalesce_test tells what the module does, as a user of it would
// see it: an http.Client, some servers on loopback, and a count of the
// connections that they got.
package h2coalesce_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/pool"
	"github.com/h2coalesce/h2coalesce/transport"
)

func TestOneConnectionServesEveryHostOfItsCertificate(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com", "example.org"}}})
	hosts := []string{"example.org"}
	for i := range 20 {
		hosts = append(hosts, fmt.Sprintf("h%d.example.com", i))
	}
	for _, h := range hosts {
		w.Host(h, "127.0.0.1")
	}
	for range 2 {
		for _, h := range hosts {
			w.get(h)
		}
	}
	w.wantConns(1)
	if n := w.Resolver().Lookups(); n != len(hosts) {
		t.Errorf("%d look-ups, want one for each of %d hosts", n, len(hosts))
	}
	want := pool.Stats{Conns: 1, Idle: 1, Dials: 1, Shared: 40, Reused: 1}
	if diff := cmp.Diff(want, w.transport.Stats()); diff != "" {
		t.Errorf("Stats (-want +got):\n%s", diff)
	}
}

func TestTwoHundredFirstRequestsAtOnceAreOneHandshake(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}}})
	var wg sync.WaitGroup
	for i := range 200 {
		host := fmt.Sprintf("h%d.example.com", i)
		w.Host(host, "127.0.0.1")
		wg.Go(func() { w.get(host) })
	}
	wg.Wait()
	w.wantConns(1)
}

func TestTheServersStreamLimitIsKept(t *testing.T) {
	release := make(chan struct{})
	var arrived sync.WaitGroup
	arrived.Add(200)
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {
		Names:      []string{"*.example.com"},
		MaxStreams: 10,
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			arrived.Done()
			<-release
		}),
	}})
	var wg sync.WaitGroup
	for i := range 200 {
		host := fmt.Sprintf("h%d.example.com", i)
		w.Host(host, "127.0.0.1")
		wg.Go(func() { w.get(host) })
	}
	arrived.Wait() // all at once, or the test would not end
	close(release)
	wg.Wait()
	w.wantConns(20)
	for _, c := range w.Record().Conns() {
		if c.Overshoot > 0 || c.MaxConcurrent > 10 {
			t.Errorf("connection %d: %d streams at once, limit 10", c.ID, c.MaxConcurrent)
		}
	}
}

func TestNothingIsSharedWithoutEvidence(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{
		"127.0.0.1": {Names: []string{"*.example.com"}},
		"127.0.0.2": {Names: []string{"*.example.com", "*.example.net"}},
	})
	w.Host("a.example.com", "127.0.0.1", "127.0.0.2")
	w.Host("elsewhere.example.com", "127.0.0.2")
	w.Host("deep.b.example.com", "127.0.0.1")
	w.Host("b.example.net", "127.0.0.2")

	first := w.get("a.example.com")
	// a resolves to both addresses, but its connection leads to the first.
	second := w.get("elsewhere.example.com")
	if first == second {
		t.Error("shared with a host at another address")
	}
	// A name is no wildcard's business two labels down.
	if _, err := w.try(t.Context(), "deep.b.example.com"); err == nil {
		t.Error("a host outside the certificate was answered")
	}
	// This one has both: the name and the address.
	if third := w.get("b.example.net"); third != second {
		t.Error("not shared with a covered host at the same address")
	}
}

func TestAMisdirectedRequestIsSentAgain(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {
		Names:       []string{"*.example.com"},
		Misdirected: func(r *lab.Request) bool { return r.Host() == "b.example.com" && r.SNI != "b.example.com" },
	}})
	for _, h := range []string{"a.example.com", "b.example.com", "c.example.com"} {
		w.Host(h, "127.0.0.1")
	}
	a := w.get("a.example.com")
	b := w.get("b.example.com") // misdirected on a's connection, unseen by the caller
	c := w.get("c.example.com")
	if b == a || c != a {
		t.Errorf("a, b, c went on connections %s, %s, %s", a, b, c)
	}
	for range 10 {
		if again := w.get("b.example.com"); again != b {
			t.Errorf("b went on connection %s, then on %s", b, again)
		}
	}
	w.wantConns(2)
	if got := w.Record().Count(func(r lab.RequestRecord) bool { return r.Status == 421 }); got != 1 {
		t.Errorf("%d requests were answered 421, want 1", got)
	}
	conns := w.transport.Conns()
	if conns[0].Host != "a.example.com" || conns[0].Port != w.Port() || conns[1].Host != "b.example.com" {
		t.Errorf("connections of %s:%d and %s", conns[0].Host, conns[0].Port, conns[1].Host)
	}
	if diff := cmp.Diff([]string{"b.example.com"}, conns[0].Excluded); diff != "" {
		t.Errorf("excluded from a's connection (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a.example.com", "c.example.com"}, conns[0].Hosts); diff != "" {
		t.Errorf("hosts on a's connection (-want +got):\n%s", diff)
	}
}

func TestAMisdirectedUploadArrivesWhole(t *testing.T) {
	var mu sync.Mutex
	var got []byte
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {
		Names:       []string{"*.example.com"},
		Misdirected: func(r *lab.Request) bool { return r.Host() == "b.example.com" && r.SNI != "b.example.com" },
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, body...)
		}),
	}})
	w.Host("a.example.com", "127.0.0.1")
	w.Host("b.example.com", "127.0.0.1")
	w.get("a.example.com")

	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	res, err := w.client.Post(w.URL("b.example.com", "/"), "application/octet-stream", bytes.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK || !bytes.Equal(got, sent) {
		t.Errorf("status %d, %d bytes arrived of %d", res.StatusCode, len(got), len(sent))
	}
	if s := w.transport.Stats(); s.Misdirected != 1 || s.Retried != 1 {
		t.Errorf("%+v, want one 421, retried", s)
	}
}

func TestAStreamIsNotRiskedOnAConnectionThatMayRefuseTheHost(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {
		Names:       []string{"*.example.com"},
		Misdirected: func(r *lab.Request) bool { return r.Host() == "b.example.com" && r.SNI != "b.example.com" },
	}})
	w.Host("a.example.com", "127.0.0.1")
	w.Host("b.example.com", "127.0.0.1")
	w.get("a.example.com")

	// Its length is unknown and it cannot be had twice.
	body := io.MultiReader(strings.NewReader("part one, "), strings.NewReader("part two"))
	res, err := w.client.Post(w.URL("b.example.com", "/"), "text/plain", body)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if diff := cmp.Diff([]int{200, 200}, w.statuses()); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
}

func TestAServerThatSendsEverybodyAwayIsHeard(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {
		Names:       []string{"*.example.com"},
		Misdirected: func(r *lab.Request) bool { return r.Host() == "b.example.com" },
	}})
	w.Host("a.example.com", "127.0.0.1")
	w.Host("b.example.com", "127.0.0.1")
	w.get("a.example.com")
	for range 20 {
		res, err := w.client.Get(w.URL("b.example.com", "/"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 421 || !strings.Contains(string(body), "misdirected") || err != nil {
			t.Fatalf("got %s %q, %v", res.Status, body, err)
		}
	}
	w.wantConns(2)
	if s := w.transport.Stats(); s.Retried != 1 {
		t.Errorf("%d requests were sent again, want the first alone", s.Retried)
	}
}

func TestMatchSaysWhatEvidenceIsAskedFor(t *testing.T) {
	const near, listed, far = "near.example.com", "listed.example.com", "far.example.com"
	for _, test := range []struct {
		match coalesce.Match
		want  []string // the hosts that share
	}{
		{coalesce.MatchAddress, []string{near}},
		{coalesce.MatchOrigin, []string{listed, near}},
		{coalesce.MatchCertificate, []string{far, listed, near}},
		{coalesce.MatchNever, nil},
	} {
		t.Run(test.match.String(), func(t *testing.T) {
			w := newWorld(t, map[string]lab.Server{
				"127.0.0.1": {Names: []string{"*.example.com"}},
				"127.0.0.2": {Names: []string{"*.example.com"}},
			})
			w.transport.Policy.Match = test.match
			w.Host("a.example.com", "127.0.0.1")
			w.Host(near, "127.0.0.1")
			w.Host(listed, "127.0.0.2")
			w.Host(far, "127.0.0.2")
			a := w.get("a.example.com")
			if test.match == coalesce.MatchOrigin {
				port := fmt.Sprint(w.Port())
				if err := w.Lab.Conns()[0].Origin("https://"+near+":"+port, "https://"+listed+":"+port); err != nil {
					t.Fatal(err)
				}
				w.get("a.example.com") // its answer comes behind the frame
			}
			var shared []string
			for _, h := range []string{far, listed, near} {
				if w.get(h) == a {
					shared = append(shared, h)
				}
			}
			if diff := cmp.Diff(test.want, shared); diff != "" {
				t.Errorf("hosts on a's connection (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAListedHostNeedsNoDNS(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}}})
	w.transport.Policy.Match = coalesce.MatchOrigin
	w.Host("a.example.com", "127.0.0.1")
	a := w.get("a.example.com")
	if err := w.Lab.Conns()[0].Origin(fmt.Sprintf("https://nowhere.example.com:%d", w.Port())); err != nil {
		t.Fatal(err)
	}
	w.get("a.example.com") // its answer comes behind the frame
	if got := w.get("nowhere.example.com"); got != a {
		t.Errorf("went on connection %s, want a's, %s", got, a)
	}
	if n := w.Resolver().LookupsOf("nowhere.example.com"); n != 0 {
		t.Errorf("looked up %d times", n)
	}
}

func TestPartitionsAreKeptApart(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}}})
	w.Host("a.example.com", "127.0.0.1")
	w.Host("b.example.com", "127.0.0.1")
	one := transport.WithPartition(t.Context(), "one")
	two := transport.WithPartition(t.Context(), "two")
	a1, b1 := w.getContext(one, "a.example.com"), w.getContext(one, "b.example.com")
	a2, b2 := w.getContext(two, "a.example.com"), w.getContext(two, "b.example.com")
	if a1 != b1 || a2 != b2 || a1 == a2 {
		t.Errorf("connections %s, %s in one partition, %s, %s in the other", a1, b1, a2, b2)
	}
}

func TestARequestCanAskForAnOwnConnection(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}}})
	w.Host("a.example.com", "127.0.0.1")
	w.Host("b.example.com", "127.0.0.1")
	a := w.get("a.example.com")
	b := w.getContext(transport.WithoutCoalescing(t.Context()), "b.example.com")
	if a == b {
		t.Error("shared all the same")
	}
	// Once there is one it is the host's first choice.
	if again := w.get("b.example.com"); again != b {
		t.Errorf("b went on connection %s, with its own (%s) open", again, b)
	}
}

func TestATraceTellsWhatWasDecidedAndWhy(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {
		Names:       []string{"*.example.com"},
		Misdirected: func(r *lab.Request) bool { return r.Host() == "b.example.com" && r.SNI != "b.example.com" },
	}})
	w.Host("a.example.com", "127.0.0.1")
	w.Host("b.example.com", "127.0.0.1")
	var told []string
	ctx := transport.WithTrace(t.Context(), &transport.Trace{
		Decided: func(d coalesce.Decision) {
			told = append(told, fmt.Sprintf("%s on %d (%s): %s", d.Host, d.Conn, d.ConnHost, d.Reason))
		},
		Misdirected: func(m transport.Misdirected) {
			told = append(told, fmt.Sprintf("%d for %s on %d: %s", m.Status, m.Host, m.Conn, m.Outcome))
		},
	})
	for _, h := range []string{"a.example.com", "b.example.com", "b.example.com"} {
		w.getContext(ctx, h)
	}
	want := []string{
		"a.example.com on 1 (a.example.com): dialed",
		"b.example.com on 1 (a.example.com): shared",
		"421 for b.example.com on 1: retried",
		"b.example.com on 2 (b.example.com): dialed",
		"b.example.com on 2 (b.example.com): own",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestExplainTellsWithoutDoing(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}}})
	w.Host("a.example.com", "127.0.0.1")
	w.Host("b.example.com", "127.0.0.1")
	w.Host("c.example.com", "127.0.0.9")
	w.get("a.example.com")
	before := w.transport.Stats()
	for host, want := range map[string]coalesce.Decision{
		"a.example.com": {Conn: 1, ConnHost: "a.example.com", Reused: true, Reason: coalesce.ReasonOwn,
			Considered: []coalesce.Verdict{{Conn: 1, ConnHost: "a.example.com", Reason: coalesce.ReasonOwn}}},
		"b.example.com": {Conn: 1, ConnHost: "a.example.com", Shared: true, Reused: true, Reason: coalesce.ReasonShared,
			Considered: []coalesce.Verdict{{Conn: 1, ConnHost: "a.example.com", Reason: coalesce.ReasonShared}}},
		"c.example.com": {Reason: coalesce.ReasonDialed,
			Considered: []coalesce.Verdict{{Conn: 1, ConnHost: "a.example.com", Reason: coalesce.ReasonAddressMismatch}}},
	} {
		want.Host = host
		got, err := w.transport.Explain(t.Context(), w.URL(host, "/"))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("Explain %s: %v (-want +got):\n%s", host, err, diff)
		}
	}
	if diff := cmp.Diff(before, w.transport.Stats()); diff != "" {
		t.Errorf("explaining changed something (-before +after):\n%s", diff)
	}
}

func TestItIsADropIn(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {
		Names: []string{"*.example.com"},
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/login":
				http.SetCookie(rw, &http.Cookie{Name: "session", Value: "s", Domain: "example.com"})
				http.Redirect(rw, r, strings.Replace("https://"+r.Host+"/home", "a.", "b.", 1), http.StatusSeeOther)
			default:
				c, err := r.Cookie("session")
				if err != nil {
					rw.WriteHeader(http.StatusForbidden)
					return
				}
				fmt.Fprintf(rw, "%s at %s", c.Value, r.Host)
			}
		}),
	}})
	w.Host("a.example.com", "127.0.0.1")
	w.Host("b.example.com", "127.0.0.1")
	w.client.Jar, _ = cookiejar.New(nil)
	res, err := w.client.Post(w.URL("a.example.com", "/login"), "text/plain", strings.NewReader("me"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if want := fmt.Sprintf("s at b.example.com:%d", w.Port()); string(body) != want || err != nil {
		t.Errorf("got %q, %v, want %q", body, err, want)
	}
	if res.ProtoMajor != 2 || res.TLS == nil || res.Request.URL.Path != "/home" {
		t.Errorf("proto %s, TLS %v, request %v", res.Proto, res.TLS != nil, res.Request.URL)
	}
	w.wantConns(1)
}

func TestAHostThatSpeaksHTTP1CostsOneHandshake(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, Protos: []string{"http/1.1"}}})
	w.Host("old.example.com", "127.0.0.1")
	for range 3 {
		w.get("old.example.com")
	}
	w.wantConns(1)
	if s := w.transport.Stats(); s.Dials != 1 || s.DialErrors != 0 || s.Conns != 0 {
		t.Errorf("%+v, want one dial, no error and no HTTP/2 connection", s)
	}
	w.transport.CloseIdleConnections()
}

func TestCloseEndsItAll(t *testing.T) {
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}}})
	w.Host("a.example.com", "127.0.0.1")
	w.get("a.example.com")
	if err := w.transport.Close(); err != nil {
		t.Error(err)
	}
	if _, err := w.try(t.Context(), "a.example.com"); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	if conns := w.transport.Conns(); len(conns) != 0 {
		t.Errorf("after Close: %v", conns)
	}
}

func TestTheZeroValueWorks(t *testing.T) {
	// Without a Resolver and with the system's roots it cannot reach the lab,
	// but it must get as far as to be told so, like net/http.
	var tr transport.Transport
	defer tr.Close()
	client := http.Client{Transport: &tr}
	w := newWorld(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"127.0.0.1"}}})
	_, err := client.Get(w.URL("127.0.0.1", "/"))
	_, want := http.Get(w.URL("127.0.0.1", "/"))
	if err == nil || err.Error() != want.Error() {
		t.Errorf("got %v\nlike net/http: %v", err, want)
	}
	if conns := tr.Conns(); len(conns) != 0 {
		t.Errorf("a connection that could not be verified was kept: %+v", conns)
	}
}
