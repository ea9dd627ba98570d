package h2coalesce_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

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
