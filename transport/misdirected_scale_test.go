package transport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

func (r *rig) count421() int {
	return r.Record().Count(func(q lab.RequestRecord) bool { return q.Status == 421 })
}

// M3: ten thousand requests for a host that is misdirected cost one 421 and one
// dial; a thousand more, with all connections dialed anew, no further one; and
// after the TTL one more.
func TestM3_TenThousandRequests(t *testing.T) {
	bubble(t, shy(nil), func(r *rig) {
		r.ok("a.example.com")
		for i := range 10_000 {
			if c := r.ok("b.example.com"); c != "2" {
				t.Fatalf("request %d went on connection %s", i, c)
			}
		}
		if n := r.count421(); n != 1 {
			t.Errorf("%d requests were answered 421, want 1", n)
		}
		r.wantHandshakes(2)
		for round := range 10 {
			r.tr.CloseIdleConnections()
			r.ok("a.example.com")
			for range 100 {
				r.ok("b.example.com")
			}
			if n := r.count421(); n != 1 {
				t.Fatalf("%d requests were answered 421 after round %d", n, round)
			}
			r.wantHandshakes(2 + 2*(round+1))
		}
		sleep(10*time.Minute + time.Second)
		r.tr.CloseIdleConnections()
		r.ok("a.example.com")
		for range 100 {
			r.ok("b.example.com")
		}
		if n := r.count421(); n != 2 {
			t.Errorf("%d requests were answered 421 in all, want 2", n)
		}
	})
}

// M5: a thousand requests for a host that is always misdirected, many of them at
// once, take two connections, and each caller gets the 421 with its body.
func TestM5_AThousandRequestsTwoConnections(t *testing.T) {
	servers := map[string]lab.Server{"127.0.0.1": {
		Names:       []string{"*.example.com"},
		Misdirected: func(r *lab.Request) bool { return r.Host() == "b.example.com" },
	}}
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		for range 20 {
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if a := r.get("b.example.com"); a.status != 421 || !strings.HasPrefix(a.body, "misdirected: b.example.com") || a.err != nil {
						t.Errorf("got %+v, want a 421 with its body", a)
					}
				})
			}
			wg.Wait()
		}
		r.wantHandshakes(2)
	})
}

// M6: whatever the body and wherever it comes from, the server that answers gets
// it whole and once, and the caller's is closed once.
func TestM6_EveryBodyArrivesOnceAndWhole(t *testing.T) {
	const kept = 64 << 10
	for _, size := range []int{0, 1, kept, kept + 1, 8 << 20} {
		for _, kind := range []string{"bytes.Reader", "known length", "unknown length", "after the answer's headers"} {
			t.Run(fmt.Sprintf("%d bytes, %s", size, kind), func(t *testing.T) {
				sent := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
				received := make(chan []byte, 2)
				servers := shy(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					http.NewResponseController(w).Flush() // the headers, ahead of the body
					b, err := io.ReadAll(q.Body)
					if err != nil {
						t.Errorf("the server: %v", err)
					}
					received <- b
				}))
				bubble(t, servers, func(r *rig) {
					received = make(chan []byte, 2)
					r.ok("a.example.com")
					<-received
					body := &onceClosed{Reader: bytes.NewReader(sent)}
					req := r.request(r.t.Context(), http.MethodPost, "b.example.com", body)
					switch kind {
					case "bytes.Reader":
						req = r.request(r.t.Context(), http.MethodPost, "b.example.com", bytes.NewReader(sent))
						body = nil
					case "known length":
						req.ContentLength = int64(size)
						if size == 0 {
							req.ContentLength = -1 // zero with a body means unknown
						}
					}
					if kind == "after the answer's headers" {
						pr, pw := io.Pipe()
						body.Reader = pr
						res, err := r.tr.RoundTrip(req)
						if err != nil || res.StatusCode != 200 {
							t.Fatalf("%v, %v", res, err)
						}
						if _, err := pw.Write(sent); err != nil && size > 0 {
							t.Error(err)
						}
						pw.Close()
						io.Copy(io.Discard, res.Body)
						res.Body.Close()
					} else if a := r.do(req); a.status != 200 || a.err != nil {
						t.Fatalf("%+v", a)
					}
					synctest.Wait()
					if got := <-received; !bytes.Equal(got, sent) || len(received) > 0 {
						t.Errorf("%d bytes arrived, want %d; %d more bodies", len(got), len(sent), len(received))
					}
					if body != nil && body.closes() != 1 {
						t.Errorf("the body was closed %d times", body.closes())
					}
				})
			})
		}
	}
}

// onceClosed counts how often it is closed.
type onceClosed struct {
	io.Reader
	mu sync.Mutex
	n  int
}

func (b *onceClosed) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	return nil
}

func (b *onceClosed) closes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// M4: many misdirected requests over several hosts, some of them given up at any
// moment: who stays is answered, and nothing is left behind.
func TestM4_ManyAtOnceWithCancellations(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			servers := map[string]lab.Server{"127.0.0.1": {
				Names:          []string{"*.example.com"},
				Misdirected:    func(q *lab.Request) bool { return q.Host() != q.SNI },
				HandshakeDelay: 20 * time.Millisecond,
				Delay:          func(*lab.Request) time.Duration { return 5 * time.Millisecond },
			}}
			bubble(t, servers, func(r *rig) {
				rng := rand.New(rand.NewPCG(seed, 0))
				r.ok("a.example.com")
				var wg sync.WaitGroup
				for i := range 64 {
					host := fmt.Sprintf("h%d.example.com", i%8)
					r.Host(host, "127.0.0.1")
					ctx, cancel := context.WithCancel(r.t.Context())
					if rng.IntN(2) == 0 {
						time.AfterFunc(time.Duration(rng.IntN(60))*time.Millisecond, cancel)
					}
					wg.Go(func() {
						defer cancel()
						a := r.do(r.request(ctx, http.MethodPost, host, strings.NewReader("body")))
						switch {
						case a.err != nil && !(errors.Is(a.err, context.Canceled) && ctx.Err() != nil):
							t.Errorf("%s: %v", host, a.err)
						case a.err == nil && a.status != 200:
							t.Errorf("%s: %d", host, a.status)
						}
					})
				}
				wg.Wait()
				synctest.Wait()
				if s := r.tr.Stats(); s.Streams != 0 || s.Waiting != 0 {
					t.Errorf("left over: %+v", s)
				}
				if n := r.Record().Handshakes(); n > 9 {
					t.Errorf("%d handshakes for 9 hosts", n)
				}
				var m *transport.MisdirectedError
				if a := r.get("h0.example.com"); a.status != 200 || errors.As(a.err, &m) {
					t.Errorf("afterwards: %+v", a)
				}
			})
		})
	}
}
