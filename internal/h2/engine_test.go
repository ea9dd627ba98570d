package h2_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/h2"
)

func TestReserveFollowsTheServersLimit(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		reserve := func(want int) {
			t.Helper()
			n := 0
			for s.conn.Reserve() {
				n++
			}
			if n != want {
				t.Fatalf("reserved %d streams, want %d", n, want)
			}
		}
		release := func(n int) {
			for range n {
				s.conn.Release()
			}
			synctest.Wait()
		}
		reserve(100) // until SETTINGS arrives
		release(100)

		s.settings()
		s.wantEvents("settings 1000")
		reserve(1000)
		release(999)

		s.settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
		s.wantEvents("settings 1000", "settings 1")
		reserve(0)
		c := s.send(t.Context())
		id := s.request().StreamID
		reserve(0)
		s.respond(id, "200")
		c.wantStatus(200)
		synctest.Wait()
		reserve(1)
	})
}

func TestReserveRefusesDeadUnusedConnection(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.server.Close()
		s.wantEvents("closed EOF")
		if s.conn.Reserve() {
			t.Error("Reserve granted a stream of a dead connection")
		}
	})
}

func TestGoAway(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		first := s.send(t.Context())
		s.wantRequest(1)
		second := s.send(t.Context())
		s.wantRequest(3)

		s.sent(s.fr.WriteGoAway(1, http2.ErrCodeNo, nil))
		s.wantEvents("settings 1000", "goaway 1 0")
		second.wantRetry(h2.RetryUnsent)
		if s.conn.Reserve() {
			t.Error("Reserve after GOAWAY")
		}
		s.respond(1, "204")
		first.wantStatus(204)

		// The engine closes the connection after its last stream.
		s.wantEvents("settings 1000", "goaway 1 0", "closed use of closed network connection")
	})
}

func TestUnusableAfterProtocolErrorReset(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		c := s.send(t.Context())
		s.wantRequest(1)
		other := s.send(t.Context())
		s.wantRequest(3)
		s.sent(s.fr.WriteRSTStream(1, http2.ErrCodeProtocol))
		s.wantEvents("settings 1000", "unusable")
		c.wantRetry(h2.RetryIdempotent)
		if s.conn.Reserve() {
			t.Error("the engine still takes requests: Unusable says otherwise")
		}
		s.respond(3, "200")
		other.wantStatus(200)
	})
}

func TestO1_IllegalPlaceIsAConnectionError(t *testing.T) {
	captureLog(t) // the engine has something to say of frames before SETTINGS
	places := map[string]func(*testing.T, *script){
		"before SETTINGS": func(*testing.T, *script) {},
		"within a field block": func(t *testing.T, s *script) {
			s.settings()
			s.sent(s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}}))
		},
	}
	for name, arrange := range places {
		t.Run(name, func(t *testing.T) {
			converse(t, new(http.Transport), func(t *testing.T, s *script) {
				c := s.send(t.Context())
				s.wantRequest(1)
				arrange(t, s)
				before := s.events.all()
				s.sent(s.fr.WriteRawFrame(0xc, 0, 0, nil))
				s.wantEvents(append(before, "closed use of closed network connection")...)
				var ce http2.ConnectionError
				if err := c.wantRetry(h2.RetryNever); !errors.As(err, &ce) || http2.ErrCode(ce) != http2.ErrCodeProtocol {
					t.Errorf("the request failed with %v, want PROTOCOL_ERROR", err)
				}
			})
		})
	}
}

// RFC 9113 §4.2 has a frame beyond SETTINGS_MAX_FRAME_SIZE be an error of the
// connection, ORIGIN or not. This engine ends it without a GOAWAY.
func TestO1_TooLargeIsAConnectionError(t *testing.T) {
	const maxFrame = 1 << 14
	frames := map[string]func(*script) error{
		"a byte more":   func(s *script) error { return s.fr.WriteRawFrame(0xc, 0, 0, make([]byte, maxFrame+1)) },
		"largest":       func(s *script) error { return s.fr.WriteRawFrame(0xc, 0, 0, make([]byte, 1<<24-1)) },
		"to be ignored": func(s *script) error { return s.fr.WriteRawFrame(0xc, 0xf, 1, make([]byte, maxFrame+1)) },
		"header alone":  func(s *script) error { _, err := s.server.Write([]byte{0, 0x40, 1, 0xc, 0, 0, 0, 0, 0}); return err },
		"frames behind it": func(s *script) error {
			var both bytes.Buffer // in one Write: there may be nobody for the second
			fr := http2.NewFramer(&both, nil)
			fr.WriteRawFrame(0xc, 0, 0, make([]byte, maxFrame+1))
			fr.WriteGoAway(0, http2.ErrCodeNo, nil)
			_, err := s.server.Write(both.Bytes())
			return err
		},
	}
	for name, send := range frames {
		t.Run(name, func(t *testing.T) {
			logged := captureLog(t)
			converse(t, new(http.Transport), func(t *testing.T, s *script) {
				s.settings()
				for range 5 { // more than 64 KiB: the cap does not hide it
					s.sent(s.fr.WriteRawFrame(0xc, 0, 0, append([]byte{0x3f, 0xfe}, make([]byte, maxFrame-2)...)))
				}
				before := s.events.all()
				c := s.send(t.Context())
				s.wantRequest(1)
				s.sent(send(s))
				s.wantEvents(append(before, closedByUs)...)
				if err := c.wantRetry(h2.RetryNever); !errors.Is(err, http2.ErrFrameTooLarge) {
					t.Errorf("the request failed with %v, want ErrFrameTooLarge", err)
				}
				if logged.Len() > 0 {
					t.Errorf("logged: %s", logged)
				}
			})
		})
	}
}

func TestPing(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		done := make(chan error, 1)
		go func() { done <- s.conn.Ping(t.Context()) }()
		for {
			if f, ok := s.read().(*http2.PingFrame); ok {
				s.sent(s.fr.WritePing(true, f.Data))
				break
			}
		}
		if err := <-done; err != nil {
			t.Errorf("Ping: %v", err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.conn.Ping(ctx); err != context.DeadlineExceeded {
			t.Errorf("Ping without an answer: %v", err)
		}
	})
}

func TestEngineTakesOverSettings(t *testing.T) {
	base := &http.Transport{
		ResponseHeaderTimeout:  3 * time.Second,
		IdleConnTimeout:        time.Second,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 5000,
		HTTP2:                  &http.HTTP2Config{StrictMaxConcurrentRequests: true, MaxReadFrameSize: 1 << 15},
	}
	converse(t, base, func(t *testing.T, s *script) {
		if n := s.preface[http2.SettingMaxFrameSize]; n != 1<<15 {
			t.Errorf("SETTINGS_MAX_FRAME_SIZE %d, want HTTP2.MaxReadFrameSize", n)
		}
		if n := s.preface[http2.SettingMaxHeaderListSize]; n < 5000 || n > 6000 {
			t.Errorf("SETTINGS_MAX_HEADER_LIST_SIZE %d, want about MaxResponseHeaderBytes", n)
		}

		s.settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
		time.Sleep(time.Minute) // IdleConnTimeout is the pool's business
		if first, second := s.conn.Reserve(), s.conn.Reserve(); !first || second {
			t.Errorf("Reserve twice: %v, %v; want the server's limit of 1 kept", first, second)
		}
		start := time.Now()
		c := s.send(t.Context())
		for _, h := range s.request().RegularFields() {
			if h.Name == "accept-encoding" {
				t.Error("compression was asked for")
			}
		}
		err := c.wantRetry(h2.RetryNever)
		var timeout interface{ Timeout() bool }
		if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(start) != 3*time.Second {
			t.Errorf("RoundTrip failed after %v with %v, want ResponseHeaderTimeout", time.Since(start), err)
		}
		s.wantEvents("settings 1") // DisableKeepAlives is the pool's business too
	})
	if !base.HTTP2.StrictMaxConcurrentRequests || base.TLSClientConfig != nil || base.TLSNextProto != nil {
		t.Error("the base was modified")
	}
}

func TestReadFrameSizeIsTheEngines(t *testing.T) {
	for conf, want := range map[int]uint32{0: 1 << 14, 1: 1 << 20, 1 << 14: 1 << 14, 1 << 15: 1 << 15, 1 << 24: 1 << 20} {
		base := &http.Transport{HTTP2: &http.HTTP2Config{MaxReadFrameSize: conf}}
		converse(t, base, func(t *testing.T, s *script) {
			if n := s.preface[http2.SettingMaxFrameSize]; n != want {
				t.Errorf("MaxReadFrameSize %d: announced %d, want %d", conf, n, want)
			}
			s.settings()
			s.sent(s.fr.WriteRawFrame(0xc, 0, 0, append([]byte{0xff, 0xff}, make([]byte, want-2)...)))
			if want < 1<<16 {
				s.wantEvents("settings 1000", "origin [] dropped 0")
			}
			before := s.events.all()
			s.sent(s.fr.WriteRawFrame(0xc, 0, 0, make([]byte, want+1)))
			s.wantEvents(append(before, "closed use of closed network connection")...)
		})
	}
}
