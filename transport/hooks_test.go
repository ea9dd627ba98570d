package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/pool"
	"github.com/h2coalesce/h2coalesce/transport"
)

// TestAPanicInAHookLosesNoStream has each of the caller's functions panic on a
// connection that carries one request at a time.
func TestAPanicInAHookLosesNoStream(t *testing.T) {
	// The answers that the hooks are called with do not end by themselves.
	servers := shy(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if _, x := lab.FromRequest(q); misdirectsB(x) {
			w.WriteHeader(http.StatusMisdirectedRequest)
		} else if q.Header.Get("X-Panic") == "" {
			return
		}
		w.(http.Flusher).Flush()
		<-q.Context().Done()
	}))
	s := servers["127.0.0.1"]
	s.Misdirected, s.MaxStreams = nil, 1
	servers["127.0.0.1"] = s
	for name, arm := range map[string]func(*rig, *http.Request) *http.Request{
		"GotConn": func(r *rig, q *http.Request) *http.Request {
			return q.WithContext(httptrace.WithClientTrace(q.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { panic("hook") }}))
		},
		"Decided": func(r *rig, q *http.Request) *http.Request {
			return q.WithContext(transport.WithTrace(q.Context(), &transport.Trace{Decided: func(coalesce.Decision) { panic("hook") }}))
		},
		"Misdirected": func(r *rig, q *http.Request) *http.Request {
			q = r.request(q.Context(), http.MethodGet, "b.example.com", nil)
			return q.WithContext(transport.WithTrace(q.Context(), &transport.Trace{Misdirected: func(transport.Misdirected) { panic("hook") }}))
		},
		"IsMisdirected": func(r *rig, q *http.Request) *http.Request {
			r.tr.IsMisdirected = func(res *http.Response) bool {
				if res.Request.Header.Get("X-Panic") != "" {
					panic("hook")
				}
				return false
			}
			q = r.request(q.Context(), http.MethodGet, "c.example.com", nil)
			q.Header.Set("X-Panic", "1")
			return q
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, servers, func(r *rig) {
				q := arm(r, r.request(r.t.Context(), http.MethodGet, "a.example.com", nil))
				r.ok("a.example.com")
				func() {
					defer func() {
						if recover() == nil {
							t.Error("no panic")
						}
					}()
					r.do(q)
				}()
				synctest.Wait()
				if s := r.tr.Stats(); s.Streams != 0 {
					t.Errorf("%d streams are taken for good", s.Streams)
				}
				r.ok("a.example.com")
				r.wantHandshakes(1)
			})
		})
	}
}

// TestD_ProxyIsAskedOnce has a Proxy whose answers vary. What it says is done.
func TestD_ProxyIsAskedOnce(t *testing.T) {
	r := newRig(t, plain())
	var connects atomic.Int32
	proxy := httptest.NewServer(tunnel(t, r, &connects))
	defer proxy.Close()
	u, _ := url.Parse(proxy.URL)
	asked := 0
	r.tr.Base.Proxy = func(*http.Request) (*url.URL, error) {
		if asked++; asked%2 == 1 {
			return u, nil
		}
		return nil, nil
	}
	for range 4 {
		r.ok("a.example.com")
	}
	if asked != 4 || connects.Load() != 1 || r.tr.Stats().Dials != 1 {
		t.Errorf("asked %d times, %d tunnels, %+v", asked, connects.Load(), r.tr.Stats())
	}
	r.tr.Close()
}

// TestC1_PartitionsThroughProxies uses a Base that has HTTP/2 from x/net, whose
// connection pool all its clones would share.
func TestC1_PartitionsThroughProxies(t *testing.T) {
	r := newRig(t, plain())
	//lint:ignore SA1019 it is what such a Base comes from
	if err := http2.ConfigureTransport(r.tr.Base); err != nil {
		t.Fatal(err)
	}
	var connects [2]atomic.Int32
	proxies := make(map[string]*url.URL)
	for i := range connects {
		s := httptest.NewServer(tunnel(t, r, &connects[i]))
		defer s.Close()
		proxies[fmt.Sprint(i)], _ = url.Parse(s.URL)
	}
	r.tr.Base.Proxy = func(q *http.Request) (*url.URL, error) { return proxies[q.Header.Get("X-Proxy")], nil }
	for i := range connects {
		q := r.request(transport.WithPartition(t.Context(), fmt.Sprint(i)), http.MethodGet, "a.example.com", nil)
		q.Header.Set("X-Proxy", fmt.Sprint(i))
		if a := r.do(q); a.status != http.StatusOK {
			t.Errorf("got %+v", a)
		}
	}
	if connects[0].Load() != 1 || connects[1].Load() != 1 {
		t.Errorf("%d and %d tunnels, want one through each proxy", connects[0].Load(), connects[1].Load())
	}
	r.wantHandshakes(2)
	r.tr.Close()
}

// tunnel answers CONNECT with a way to the rig's server.
func tunnel(t *testing.T, r *rig, connects *atomic.Int32) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		connects.Add(1)
		up, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.Port()))
		if err != nil {
			t.Error(err)
			return
		}
		w.WriteHeader(http.StatusOK)
		down, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			io.Copy(up, buffered)
			up.Close()
		}()
		go func() {
			io.Copy(down, up)
			down.Close()
		}()
	})
}

func TestExplainKeepsPasswordsToItself(t *testing.T) {
	var tr transport.Transport
	defer tr.Close()
	for _, bad := range []string{"https://user:S3CRET@exa mple/", "ftp://user:S3CRET@example.com/", "https://user:S3CRET@%zz/"} {
		if _, err := tr.Explain(t.Context(), bad); err == nil || strings.Contains(err.Error(), "S3CRET") {
			t.Errorf("%v", err)
		}
	}
}

// TestP6_ABodysErrorIsTheCallers has a body fail with what looks like an error
// of the connection that it is sent on.
func TestP6_ABodysErrorIsTheCallers(t *testing.T) {
	for _, getBody := range []bool{true, false} {
		t.Run(fmt.Sprint("GetBody ", getBody), func(t *testing.T) {
			bubble(t, plain(), func(r *rig) {
				broken := http2.StreamError{StreamID: 1, Code: http2.ErrCodeRefusedStream}
				body := func() (io.ReadCloser, error) {
					return io.NopCloser(io.MultiReader(strings.NewReader("begun"), errReader{broken})), nil
				}
				q := r.request(r.t.Context(), http.MethodPost, "a.example.com", nil)
				q.Body, _ = body()
				q.ContentLength = 1000
				if getBody {
					q.GetBody = body
				}
				if a := r.do(q); !errors.As(a.err, new(http2.StreamError)) {
					t.Errorf("got %+v, want the body's error", a)
				}
				sleep(time.Hour) // time enough to send it again
				if n := len(r.Record().Requests()); n > 1 {
					t.Errorf("sent %d times", n)
				}
			})
		})
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestD_AnUploadOutlivesAnAnswerWithoutBody has the server answer with HEADERS
// alone and then read on.
func TestD_AnUploadOutlivesAnAnswerWithoutBody(t *testing.T) {
	for _, getBody := range []bool{true, false} {
		t.Run(fmt.Sprint("GetBody ", getBody), func(t *testing.T) {
			got := make(chan string, 1)
			servers := plain()
			s := servers["127.0.0.1"]
			s.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				c, x := lab.FromRequest(q)
				// HEADERS with END_STREAM and :status 200, which is index 8
				// of the static table.
				if err := c.Frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, x.Stream, []byte{0x88}); err != nil {
					t.Error(err)
				}
				b, err := io.ReadAll(q.Body)
				if err != nil {
					t.Error(err)
				}
				got <- string(b)
			})
			servers["127.0.0.1"] = s
			bubble(t, servers, func(r *rig) {
				pr, pw := io.Pipe()
				q := r.request(r.t.Context(), http.MethodPost, "a.example.com", pr)
				if getBody {
					q.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("not asked for") }
				}
				wrote := make(chan struct{})
				go func() {
					io.WriteString(pw, "first, ")
					close(wrote)
				}()
				res, err := r.tr.RoundTrip(q)
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(res.Body); len(b) != 0 || err != nil {
					t.Errorf("got %q, %v", b, err)
				}
				res.Body.Close()
				if s := r.tr.Stats(); s.Streams != 1 {
					t.Errorf("%d streams while the upload goes on", s.Streams)
				}
				<-wrote
				io.WriteString(pw, "second")
				pw.Close()
				if b := <-got; b != "first, second" {
					t.Errorf("the server got %q", b)
				}
				synctest.Wait()
				if s := r.tr.Stats(); s.Streams != 0 {
					t.Errorf("%d streams in the end", s.Streams)
				}
			})
		})
	}
}

// TestM6_AnAnswerThatCrossesTheBody has IsMisdirected decide about a request whose
// body has not been touched, and while it does so the body begins to be sent.
func TestM6_AnAnswerThatCrossesTheBody(t *testing.T) {
	servers := plain()
	s := servers["127.0.0.1"]
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		b, _ := io.ReadAll(q.Body)
		w.Write(b)
	})
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		r.tr.Base.ExpectContinueTimeout = time.Second
		asked := false
		r.tr.IsMisdirected = func(res *http.Response) bool {
			if res.Request.Method != http.MethodPost {
				return false
			}
			asked = true
			sleep(2 * time.Second) // the engine waits for 100 (Continue) no longer
			return true
		}
		r.ok("a.example.com")
		r.ok("b.example.com")
		q := r.request(r.t.Context(), http.MethodPost, "b.example.com", io.MultiReader(strings.NewReader("body")))
		q.Header.Set("Expect", "100-continue")
		a := r.do(q)
		if !asked || a.status != http.StatusOK || a.body != "body" {
			t.Errorf("asked %v, got %+v, want an answer to the whole body", asked, a)
		}
	})
}

func TestM5_FrontedRequestsSayNothingOfTheHost(t *testing.T) {
	turned := false
	servers := plain()
	s := servers["127.0.0.1"]
	s.Misdirected = func(q *lab.Request) bool { return q.Host() == "hidden.example.com" || turned && q.Conn == 1 }
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		q := r.request(r.t.Context(), http.MethodGet, "a.example.com", nil)
		q.Host = "hidden.example.com"
		if a := r.do(q); a.status != http.StatusMisdirectedRequest {
			t.Fatalf("got %+v", a)
		}
		turned = true
		if a := r.get("a.example.com"); a.status != http.StatusOK || a.conn != "2" {
			t.Errorf("got %+v, want it sent again on another connection", a)
		}
	})
}

// TestM3_AnOwnConnectionThatTurnsAwayIsLeft has a host's own connection answer
// 421 from some time on. That costs one 421, and its guests stay.
func TestM3_AnOwnConnectionThatTurnsAwayIsLeft(t *testing.T) {
	turned := false
	servers := plain()
	s := servers["127.0.0.1"]
	s.Misdirected = func(q *lab.Request) bool { return turned && q.Host() == "a.example.com" && q.Conn == 1 }
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		r.ok("b.example.com")
		turned = true
		for range 5 {
			r.ok("a.example.com")
		}
		if b := r.ok("b.example.com"); b != "1" {
			t.Errorf("b went on connection %s", b)
		}
		if n := r.Record().Count(func(q lab.RequestRecord) bool { return q.Status == 421 }); n != 1 {
			t.Errorf("%d requests were answered 421", n)
		}
		if c := r.tr.Conns()[0]; len(c.Excluded) != 1 || c.Excluded[0] != "a.example.com" {
			t.Errorf("excluded: %v", c.Excluded)
		}
		r.wantHandshakes(2)
	})
}

// TestP6_AStreamResetWithProtocolError is net/http's reading of that code, but
// for requests that must not be processed twice.
func TestP6_AStreamResetWithProtocolError(t *testing.T) {
	servers := plain()
	s := servers["127.0.0.1"]
	s.Reset = func(q *lab.Request) (http2.ErrCode, bool) {
		return http2.ErrCodeProtocol, q.Conn == 1 && q.Path == "/x"
	}
	servers["127.0.0.1"] = s
	for _, test := range []struct {
		method, header string
		again          bool
	}{
		{"GET", "", true},
		{"", "", true}, // GET, too
		{"HEAD", "", true},
		{"OPTIONS", "", true},
		{"TRACE", "", true},
		{"POST", "", false},
		{"PUT", "", false}, // as in net/http
		{"DELETE", "", false},
		{"POST", "Idempotency-Key", true},
		{"POST", "X-Idempotency-Key", true},
	} {
		t.Run(test.method+" "+test.header, func(t *testing.T) {
			bubble(t, servers, func(r *rig) {
				r.ok("a.example.com")
				q := r.request(r.t.Context(), test.method, "a.example.com", nil)
				q.Method, q.URL.Path = test.method, "/x"
				if test.header != "" {
					q.Header[test.header] = nil
				}
				if a := r.do(q); (a.status == http.StatusOK) != test.again || (a.err == nil) != test.again {
					t.Errorf("got %+v, want that it is sent again: %v", a, test.again)
				}
			})
		})
	}
}

// TestAPauseEnds has requests wait between attempts, and ends that wait.
func TestAPauseEnds(t *testing.T) {
	servers := plain()
	s := servers["127.0.0.1"]
	s.Refuse = func(*lab.Request) bool { return true }
	servers["127.0.0.1"] = s
	for _, test := range []struct {
		name string
		end  func(*rig, chan struct{}, context.CancelCauseFunc)
		want error
	}{
		{"by Close", func(r *rig, _ chan struct{}, _ context.CancelCauseFunc) { r.tr.Close() }, transport.ErrClosed},
		{"by Request.Cancel", func(_ *rig, c chan struct{}, _ context.CancelCauseFunc) { close(c) }, pool.ErrCanceled},
		{"by the context", func(_ *rig, _ chan struct{}, f context.CancelCauseFunc) { f(io.ErrShortWrite) }, io.ErrShortWrite},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, servers, func(r *rig) {
				c := make(chan struct{})
				ctx, cancel := context.WithCancelCause(r.t.Context())
				defer cancel(nil)
				q := r.request(ctx, http.MethodGet, "a.example.com", nil)
				q.Cancel = c //lint:ignore SA1019 a drop-in heeds it
				time.AfterFunc(4*time.Second, func() { test.end(r, c, cancel) })
				start := time.Now()
				if a := r.do(q); !errors.Is(a.err, test.want) || time.Since(start) != 4*time.Second {
					t.Errorf("got %v after %v, want %v at once", a.err, time.Since(start), test.want)
				}
			})
		})
	}
}

// TestCloseReachesRequestsOnTheirWayToBase closes while a request is between the
// check and net/http.
func TestCloseReachesRequestsOnTheirWayToBase(t *testing.T) {
	open := make(chan int, 10)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			open <- 1
		}
	}
	s.Start()
	defer s.Close()
	in, on := make(chan bool), make(chan bool)
	tr := &transport.Transport{Base: &http.Transport{Proxy: func(*http.Request) (*url.URL, error) {
		in <- true
		<-on
		return nil, nil
	}}}
	done := make(chan error)
	go func() {
		res, err := (&http.Client{Transport: tr}).Get(s.URL)
		if err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		done <- err
	}()
	<-in
	tr.Close()
	close(on)
	<-done
	<-open // or the test would not end
}

func TestRetriedCountsWhatWasSentAgain(t *testing.T) {
	bubble(t, shy(nil), func(r *rig) {
		r.ok("a.example.com")
		ctx, cancel := context.WithCancel(r.t.Context())
		ctx = transport.WithTrace(ctx, &transport.Trace{Misdirected: func(transport.Misdirected) { cancel() }})
		a := r.do(r.request(ctx, http.MethodGet, "b.example.com", nil))
		if s := r.tr.Stats(); a.err == nil || s.Misdirected != 1 || s.Retried != 0 {
			t.Errorf("%v, %+v", a.err, s)
		}
	})
}
