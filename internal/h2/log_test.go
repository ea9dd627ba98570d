package h2_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/h2coalesce/h2coalesce/internal/h2"
)

// entry returns the payload of an ORIGIN frame with one entry.
func entry(text string) []byte {
	return append([]byte{byte(len(text) >> 8), byte(len(text))}, text...)
}

// TestO1_NothingIsLogged sends ORIGIN frames of every kind wherever a frame may
// stand, and many of them.
func TestO1_NothingIsLogged(t *testing.T) {
	b := entry("https://b.example")
	type kind struct {
		name     string
		flags    http2.Flags
		streamID uint32
		payload  []byte
		events   int // how many there are of it however many frames; -1: one a frame
	}
	kinds := []kind{
		{"well-formed", 0, 0, b, -1},
		{"empty", 0, 0, nil, 1},
		{"not an origin", 0, 0, entry("http://b.example/\x00"), -1},
		{"entry past the frame", 0, 0, append(b, 0xff, 0xff, 'x'), -1},
		{"first entry past the frame", 0, 0, []byte{0, 2, 'x'}, 1},
		{"half a length", 0, 0, []byte{0}, 1},
		{"on stream 1", 0, 1, b, 0},
		{"on a stream that is none", 0, 1<<31 - 1, b, 0},
		{"flag 0x10", 0x10, 0, b, -1},
		{"flag 0xf0", 0xf0, 0, b, -1},
		{"largest", 0, 0, entry(strings.Repeat("a", 1<<14-2)), 5}, // four within 64 KiB, and the next
	}
	for _, flag := range []http2.Flags{0x1, 0x2, 0x4, 0x8, 0xff} {
		kinds = append(kinds, kind{fmt.Sprintf("flag %#x", flag), flag, 0, b, 0})
	}
	for _, k := range kinds {
		for _, n := range []int{1, 1000} {
			t.Run(fmt.Sprintf("%s/%d", k.name, n), func(t *testing.T) {
				logged := captureLog(t)
				converse(t, new(http.Transport), func(t *testing.T, s *script) {
					origins := func() {
						for range n {
							s.sendOnly(s.fr.WriteRawFrame(0xc, k.flags, k.streamID, k.payload))
						}
						synctest.Wait()
					}
					s.settings()
					origins()
					c := s.send(t.Context())
					s.wantRequest(1)
					origins()
					s.headers(1)
					origins()
					s.sent(s.fr.WriteData(1, false, []byte("bo")))
					origins()
					s.sent(s.fr.WriteDataPadded(1, true, []byte("dy"), make([]byte, 7)))
					origins()
					c.wantBody("body")
					again := s.send(t.Context())
					s.wantRequest(3)
					s.respond(3, "204")
					again.wantStatus(204)
					if logged.Len() > 0 {
						t.Errorf("logged: %.200s", logged)
					}
					events := len(s.events.all()) - 1 // SETTINGS
					switch {
					case k.events >= 0 && events != min(k.events, 5*n):
						t.Errorf("%d events, want %d", events, k.events)
					case k.events < 0 && events != min(5*n, (64<<10)/len(k.payload)+1):
						t.Errorf("%d events, want one for each of %d frames as far as 64 KiB go, and one for the next", events, 5*n)
					}
				})
			})
		}
	}
}

// What all that is for, and how TestO1_NothingIsLogged would notice: if the
// engine no longer logs frames that it does not know, they need not be cut out.
func TestEngineLogsFramesThatReachIt(t *testing.T) {
	const line = "Transport: unhandled response frame type *http2.UnknownFrame"
	t.Run("of another type", func(t *testing.T) {
		logged := captureLog(t)
		converse(t, new(http.Transport), func(t *testing.T, s *script) {
			s.settings()
			s.sent(s.fr.WriteRawFrame(0xfa, 0, 0, entry("https://b.example")))
			if n := strings.Count(logged.String(), line); n != 1 {
				t.Errorf("%q was logged %d times in %q", line, n, logged)
			}
		})
	})
	t.Run("ORIGIN without the observing connection", func(t *testing.T) {
		logged := captureLog(t)
		synctest.Test(t, func(t *testing.T) {
			s := &script{t: t}
			s.client, s.server = memPipe()
			defer s.server.Close()
			e, err := h2.NewEngine(new(http.Transport))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.NewBareConn(s.client); err != nil {
				t.Fatal(err)
			}
			s.accept(s.server)
			s.settings()
			for range 3 {
				s.sent(s.fr.WriteRawFrame(0xc, 0, 0, entry("https://b.example")))
			}
			if n := strings.Count(logged.String(), line); n != 3 {
				t.Errorf("%q was logged %d times in %q", line, n, logged)
			}
		})
	})
}

// headers sends the headers of a response whose body is to follow.
func (s *script) headers(streamID uint32) {
	s.t.Helper()
	s.buf.Reset()
	s.enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	s.sent(s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: s.buf.Bytes(), EndHeaders: true}))
}

// sendOnly takes the result of a write and does not wait for its effect.
func (s *script) sendOnly(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("server: %v", err)
	}
}

func (c *call) wantBody(want string) {
	c.t.Helper()
	<-c.done
	if c.err != nil {
		c.t.Fatalf("RoundTrip: %v", c.err)
	}
	defer c.res.Body.Close()
	if got, err := io.ReadAll(c.res.Body); string(got) != want || err != nil {
		c.t.Errorf("body %q, %v; want %q", got, err, want)
	}
}
