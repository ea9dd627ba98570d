package h2_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/h2coalesce/h2coalesce/internal/h2"
)

// eventLog records events, one line each, from any goroutine.
type eventLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *eventLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *eventLog) Settings(n uint32)              { l.add("settings %d", n) }
func (l *eventLog) GoAway(last, code uint32)       { l.add("goaway %d %d", last, code) }
func (l *eventLog) Unusable()                      { l.add("unusable") }
func (l *eventLog) Origin(entries []string, d int) { l.add("origin %q dropped %d", entries, d) }
func (l *eventLog) Closed(err error)               { l.add("closed %v", err) }

func (l *eventLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// script is a conversation between a Conn and a server that does what the
// test says, in a synctest bubble.
type script struct {
	t      *testing.T
	conn   *h2.Conn
	events *eventLog
	client *memConn // what conn runs on
	server *memConn

	preface map[http2.SettingID]uint32 // the settings that the client sent

	fr  *http2.Framer // reads and writes at the server
	buf bytes.Buffer  // holds field blocks
	enc *hpack.Encoder
}

// converse runs f in a bubble, on a new connection whose client preface and
// SETTINGS the server has read. At the end both ends are closed.
func converse(t *testing.T, base *http.Transport, f func(*testing.T, *script)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &script{t: t, events: new(eventLog)}
		s.client, s.server = memPipe()
		s.conn = newConn(t, base, s.client, s.events)
		defer s.close() // also when f gives up: the bubble would not end
		s.accept(s.server)
		f(t, s)
	})
}

func (s *script) close() {
	s.conn.Close()
	s.server.Close()
}

func newConn(t *testing.T, base *http.Transport, c net.Conn, ev h2.Events) *h2.Conn {
	t.Helper()
	e, err := h2.NewEngine(base)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := e.NewConn(c, ev)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// accept has the server read the client's preface from c.
func (s *script) accept(c net.Conn) {
	s.t.Helper()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
		s.t.Fatalf("client preface: %q, %v", preface, err)
	}
	s.fr = http2.NewFramer(c, c)
	s.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.enc = hpack.NewEncoder(&s.buf)
	f, ok := s.read().(*http2.SettingsFrame)
	if !ok {
		s.t.Fatal("the client's first frame is not SETTINGS")
	}
	s.preface = make(map[http2.SettingID]uint32)
	for i := range f.NumSettings() {
		s.preface[f.Setting(i).ID] = f.Setting(i).Val
	}
}

func (s *script) read() http2.Frame {
	s.t.Helper()
	f, err := s.fr.ReadFrame()
	if err != nil {
		s.t.Fatalf("server: %v", err)
	}
	return f
}

// request reads up to the next request.
func (s *script) request() *http2.MetaHeadersFrame {
	s.t.Helper()
	for {
		if f, ok := s.read().(*http2.MetaHeadersFrame); ok {
			return f
		}
	}
}

func (s *script) wantRequest(streamID uint32) {
	s.t.Helper()
	if f := s.request(); f.StreamID != streamID {
		s.t.Fatalf("request on stream %d, want %d", f.StreamID, streamID)
	}
}

// settings sends SETTINGS and lets the engine take it.
func (s *script) settings(settings ...http2.Setting) {
	s.t.Helper()
	s.sent(s.fr.WriteSettings(settings...))
}

// respond sends a response without a body.
func (s *script) respond(streamID uint32, status string) {
	s.t.Helper()
	s.buf.Reset()
	s.enc.WriteField(hpack.HeaderField{Name: ":status", Value: status})
	s.sent(s.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: streamID, BlockFragment: s.buf.Bytes(), EndHeaders: true, EndStream: true,
	}))
}

// download has the first request be answered with a body that does not end.
func (s *script) download() *call {
	s.t.Helper()
	c := s.send(s.t.Context())
	s.wantArrived(0, 1)
	s.headers(1)
	<-c.done
	return c
}

// sent takes the result of a write and waits until it has had its effect.
func (s *script) sent(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("server: %v", err)
	}
	synctest.Wait()
}

func (s *script) wantEvents(want ...string) {
	s.t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, s.events.all()); diff != "" {
		s.t.Fatalf("events (-want +got):\n%s", diff)
	}
}

// call is a request under way.
type call struct {
	t    *testing.T
	done chan struct{}
	res  *http.Response
	err  error
}

// send starts a GET.
func (s *script) send(ctx context.Context) *call {
	s.t.Helper()
	return s.start(request(s.t, ctx, http.MethodGet, nil))
}

func (s *script) start(req *http.Request) *call {
	c := &call{t: s.t, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.res, c.err = s.conn.RoundTrip(req)
	}()
	return c
}

func request(t *testing.T, ctx context.Context, method string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "https://a.example/", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func (c *call) wantStatus(status int) {
	c.t.Helper()
	<-c.done
	if c.err != nil {
		c.t.Fatalf("RoundTrip: %v", c.err)
	}
	c.res.Body.Close()
	if c.res.StatusCode != status {
		c.t.Errorf("status %d, want %d", c.res.StatusCode, status)
	}
}

// wantRetry waits for the call to fail and checks what is made of its error.
func (c *call) wantRetry(want h2.Retry) error {
	c.t.Helper()
	<-c.done
	if c.err == nil {
		c.t.Fatal("RoundTrip succeeded")
	}
	if got := h2.RetryOf(c.err); got != want {
		c.t.Errorf("RetryOf(%q) = %v, want %v: if golang.org/x/net has changed the text, retry.go must follow", c.err, got, want)
	}
	return c.err
}

// captureLog collects what is logged until the test ends.
func captureLog(t *testing.T) *bytes.Buffer {
	buf, old := new(bytes.Buffer), log.Writer()
	log.SetOutput(buf)
	t.Cleanup(func() { log.SetOutput(old) })
	return buf
}
