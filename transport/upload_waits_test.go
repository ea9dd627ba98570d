package transport_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// halting is an upload whose writer takes its time.
type halting struct {
	*rig
	*io.PipeWriter
	*io.PipeReader
	closes atomic.Int32
	start  time.Time
	got    chan *http.Response
	failed chan error
}

func (s *halting) Close() error {
	s.closes.Add(1)
	return s.PipeReader.Close()
}

// upload begins a request to b with a body of 8 bytes that is kept, of which it
// writes 4, and lets happen what follows from that.
func (r *rig) upload(ctx context.Context, method string) *halting {
	s := &halting{rig: r, start: time.Now(), got: make(chan *http.Response, 1), failed: make(chan error, 1)}
	s.PipeReader, s.PipeWriter = io.Pipe()
	req := r.request(ctx, method, "b.example.com", nil)
	req.Body, req.ContentLength = s, 8
	go func() {
		if res, err := r.tr.RoundTrip(req); err != nil {
			s.failed <- err
		} else {
			s.got <- res
		}
	}()
	io.WriteString(s, "kept")
	synctest.Wait()
	return s
}

// rest writes the rest and checks that it arrives behind what was kept.
func (s *halting) rest(method string) {
	s.t.Helper()
	io.WriteString(s, "rest")
	s.PipeWriter.Close()
	synctest.Wait()
	select {
	case res := <-s.got:
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || string(body) != method+" keptrest" || err != nil {
			s.t.Errorf("status %d, %q, %v", res.StatusCode, body, err)
		}
	case err := <-s.failed:
		s.t.Error(err)
	}
}

// over checks that the request has left nothing behind, and took no time.
func (s *halting) over() {
	s.t.Helper()
	synctest.Wait()
	if d := time.Since(s.start); d != 0 {
		s.t.Errorf("it took %v", d)
	}
	if n := s.closes.Load(); n != 1 {
		s.t.Errorf("the body was closed %d times", n)
	}
	if n := s.tr.Stats().Streams; n != 0 {
		s.t.Errorf("%d streams are kept", n)
	}
	if _, err := s.Write([]byte("late")); err != io.ErrClosedPipe {
		s.t.Errorf("the writer got %v", err)
	}
}

// cutsUploads is a server that lets end do something about the first upload once
// 4 bytes of it are there. The one stream that it permits shows whether the first
// one is free again. again tells how much of a second upload is there.
func cutsUploads(end func(http.ResponseWriter, *lab.Conn, uint32)) (servers map[string]lab.Server, again *atomic.Int32) {
	var uploads atomic.Int32
	again = new(atomic.Int32)
	return map[string]lab.Server{"127.0.0.1": {
		Names:      []string{"*.example.com"},
		MaxStreams: 1,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.ContentLength <= 0 {
				return
			}
			kept := make([]byte, 4)
			n, _ := io.ReadFull(q.Body, kept)
			if uploads.Add(1) == 1 {
				c, x := lab.FromRequest(q)
				end(w, c, x.Stream)
				return
			}
			again.Add(int32(n))
			rest, _ := io.ReadAll(q.Body)
			io.WriteString(w, q.Method+" "+string(kept)+string(rest))
		}),
	}}, again
}

// The stream of an upload may end while its writer takes its time. If the body is
// kept, the request goes on at once: it is sent again, or it fails and the body is
// closed.
func TestP6_AKeptUploadThatWaitsIsLetGo(t *testing.T) {
	by := func(e end) func(http.ResponseWriter, *lab.Conn, uint32) {
		return func(_ http.ResponseWriter, c *lab.Conn, stream uint32) { e.act(c, stream) }
	}
	misdirected := func(w http.ResponseWriter, _ *lab.Conn, _ uint32) { w.WriteHeader(http.StatusMisdirectedRequest) }
	for _, test := range []struct {
		name   string
		method string
		end    func(http.ResponseWriter, *lab.Conn, uint32)
		again  bool
		conns  int // in the end, with one more request; the engine leaves one that says PROTOCOL_ERROR
	}{
		{"REFUSED_STREAM", "POST", by(refused), true, 1},
		{"CANCEL", "POST", by(canceledByIt), false, 1},
		{"CANCEL of a GET", "GET", by(canceledByIt), false, 1},
		{"PROTOCOL_ERROR", "POST", by(protocolError), false, 2},
		{"PROTOCOL_ERROR of a GET", "GET", by(protocolError), true, 2},
		{"connection cut", "POST", by(cut), false, 2},
		{"connection of a GET cut", "GET", by(cut), false, 2},
		{"GOAWAY", "POST", by(goAwayBelow), true, 2},
		{"421", "POST", misdirected, true, 2}, // M6
	} {
		t.Run(test.name, func(t *testing.T) {
			servers, again := cutsUploads(test.end)
			bubble(t, servers, func(r *rig) {
				r.ok("a.example.com")
				s := r.upload(r.t.Context(), test.method)
				switch {
				case test.again && again.Load() != 4:
					t.Errorf("the request is not sent again, with what was kept, before its writer moves")
					fallthrough
				case test.again:
					s.rest(test.method)
				default:
					s.wantFailure(nil)
				}
				s.over()
				r.ok("a.example.com")
				r.wantHandshakes(test.conns)
			})
		})
	}
}

// A 421 is retried at once where that means HTTP/1.1.
func TestM6_AKeptUploadThatWaitsGoesOnInHTTP1(t *testing.T) {
	servers, again := cutsUploads(func(w http.ResponseWriter, _ *lab.Conn, _ uint32) {
		w.WriteHeader(http.StatusMisdirectedRequest)
	})
	s := servers["127.0.0.1"]
	s.TLS = http1For("b.example.com")
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		s := r.upload(r.t.Context(), http.MethodPost)
		if n := again.Load(); n != 4 {
			t.Errorf("%d bytes are sent again before the writer moves", n)
		}
		s.rest(http.MethodPost)
		s.over()
		if c := r.Record().Conns(); len(c) != 2 || c[1].Proto != "http/1.1" {
			t.Errorf("connections: %+v", c)
		}
	})
}

// wantFailure checks that RoundTrip has returned; with want, if not nil.
func (s *halting) wantFailure(want error) {
	s.t.Helper()
	select {
	case err := <-s.failed:
		if want != nil && !errors.Is(err, want) {
			s.t.Errorf("got %v, want %v", err, want)
		}
	default:
		s.t.Error("RoundTrip waits for the writer")
		s.PipeWriter.Close()
	}
}

func TestP6_AKeptUploadThatWaitsIsCanceled(t *testing.T) {
	t.Run("on its way", func(t *testing.T) {
		servers, _ := cutsUploads(func(http.ResponseWriter, *lab.Conn, uint32) {
			time.Sleep(time.Second)
		})
		bubble(t, servers, func(r *rig) {
			r.ok("a.example.com")
			ctx, cancel := context.WithCancel(r.t.Context())
			s := r.upload(ctx, http.MethodPost)
			cancel()
			synctest.Wait()
			s.wantFailure(context.Canceled)
			s.over()
		})
	})
	t.Run("between two attempts", func(t *testing.T) {
		servers, _ := cutsUploads(nil)
		s := servers["127.0.0.1"]
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.ContentLength > 0 { // twice, after which a client waits for a second
				io.ReadFull(q.Body, make([]byte, 4))
				c, x := lab.FromRequest(q)
				c.Reset(x.Stream, http2.ErrCodeRefusedStream)
			}
		})
		servers["127.0.0.1"] = s
		bubble(t, servers, func(r *rig) {
			r.ok("a.example.com")
			ctx, cancel := context.WithCancel(r.t.Context())
			s := r.upload(ctx, http.MethodPost)
			if n, closes := r.Record().Conns()[0].Requests, s.closes.Load(); n != 3 || closes != 0 {
				t.Errorf("%d requests have arrived, and the body was closed %d times; want another attempt to be due", n, closes)
			}
			cancel()
			synctest.Wait()
			s.wantFailure(context.Canceled)
			s.over()
		})
	})
}

// A final answer ends an upload if it is one of refusal, and leaves it be if not.
func TestD_AKeptUploadThatIsAnsweredEarly(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		servers, _ := cutsUploads(func(w http.ResponseWriter, _ *lab.Conn, _ uint32) {
			w.WriteHeader(http.StatusForbidden)
		})
		bubble(t, servers, func(r *rig) {
			r.ok("a.example.com")
			s := r.upload(r.t.Context(), http.MethodPost)
			select {
			case res := <-s.got:
				res.Body.Close()
				if res.StatusCode != http.StatusForbidden {
					t.Errorf("status %d", res.StatusCode)
				}
			default:
				t.Fatal("no answer")
			}
			s.over()
			r.ok("a.example.com")
			r.wantHandshakes(1)
		})
	})
	t.Run("full duplex", func(t *testing.T) {
		servers, _ := cutsUploads(func(w http.ResponseWriter, _ *lab.Conn, _ uint32) {})
		s := servers["127.0.0.1"]
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			io.Copy(w, q.Body)
		})
		servers["127.0.0.1"] = s
		bubble(t, servers, func(r *rig) {
			s := r.upload(r.t.Context(), http.MethodPost)
			var res *http.Response
			select {
			case res = <-s.got:
			default:
				t.Fatal("no answer")
			}
			io.WriteString(s, "rest")
			s.PipeWriter.Close()
			if b, err := io.ReadAll(res.Body); string(b) != "keptrest" || err != nil {
				t.Errorf("got %q, %v", b, err)
			}
			res.Body.Close()
			s.over()
		})
	})
}
