package transport_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

func TestD_FullDuplexAndInformational(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		in := bufio.NewScanner(r.Body)
		for in.Scan() {
			fmt.Fprintln(w, strings.ToUpper(in.Text()))
			w.(http.Flusher).Flush()
		}
	})
	bubble(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, Handler: handler}}, func(r *rig) {
		pr, pw := io.Pipe()
		var hints []string
		ctx := httptrace.WithClientTrace(r.t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, h.Get("Link")))
				return nil
			},
		})
		res, err := r.tr.RoundTrip(r.request(ctx, http.MethodPost, "a.example.com", pr))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		out := bufio.NewReader(res.Body)
		for _, word := range []string{"one", "two"} {
			fmt.Fprintln(pw, word)
			if line, err := out.ReadString('\n'); line != strings.ToUpper(word)+"\n" || err != nil {
				t.Errorf("got %q, %v", line, err)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(out); len(rest) != 0 || err != nil {
			t.Errorf("got %q, %v", rest, err)
		}
		if diff := cmp.Diff([]string{"103</style.css>; rel=preload"}, hints); diff != "" {
			t.Errorf("hints (-want +got):\n%s", diff)
		}
		if s := r.tr.Stats(); s.Streams != 1 {
			t.Errorf("%d streams before Close, want the upload's", s.Streams)
		}
		res.Body.Close()
		if s := r.tr.Stats(); s.Streams != 0 {
			t.Errorf("%d streams after Close", s.Streams)
		}
	})
}

func TestAStreamIsFreeAtTheEndOfTheBody(t *testing.T) {
	bubble(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, MaxStreams: 1}}, func(r *rig) {
		for range 100 {
			res, err := r.tr.RoundTrip(r.request(r.t.Context(), http.MethodGet, "a.example.com", nil))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close() // much later
		}
		r.wantHandshakes(1)
	})
}

// P4: who waits in line for the stream finds it free: the engine, which would
// otherwise be asked again after a pause, has taken it off its count before.
func TestP4_AStreamIsFreeForTheNextInLine(t *testing.T) {
	bubble(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, MaxStreams: 1}}, func(r *rig) {
		r.tr.Limits.MaxConns = 1
		r.ok("a.example.com")
		began := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 250 {
					r.ok("a.example.com")
				}
			})
		}
		wg.Wait()
		if d := time.Since(began); d != 0 {
			t.Errorf("they took %v", d)
		}
	})
}

func TestP4_CanceledRequestsDoNotUseUpTheConnection(t *testing.T) {
	servers := map[string]lab.Server{"127.0.0.1": {
		Names:      []string{"*.example.com"},
		MaxStreams: 2,
		Delay: func(q *lab.Request) time.Duration {
			if q.Path == "/slow" {
				return time.Hour
			}
			return 0
		},
	}}
	bubble(t, servers, func(r *rig) {
		for range 50 {
			ctx, cancel := context.WithTimeout(r.t.Context(), time.Millisecond)
			req := r.request(ctx, http.MethodGet, "a.example.com", nil)
			req.URL.Path = "/slow"
			if a := r.do(req); !errors.Is(a.err, context.DeadlineExceeded) {
				t.Fatalf("got %+v", a)
			}
			cancel()
			r.ok("a.example.com")
		}
		r.wantHandshakes(1)
	})
}

func TestLargeBodiesBothWays(t *testing.T) {
	r := newRig(t, map[string]lab.Server{"127.0.0.1": {
		Names: []string{"*.example.com"},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			w.WriteHeader(http.StatusOK)
			io.Copy(w, q.Body)
		}),
	}})
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	res, err := r.tr.RoundTrip(r.request(t.Context(), http.MethodPost, "a.example.com", bytes.NewReader(sent)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); !bytes.Equal(got, sent) || err != nil {
		t.Errorf("%d bytes back of %d, %v", len(got), len(sent), err)
	}
}
