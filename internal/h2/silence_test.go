package h2_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/h2"
)

// sleep lets time pass and what it brings about happen.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// arrivals is what has arrived at the server.
type arrivals struct {
	requests []uint32 // their streams
	pings    []*http2.PingFrame
}

// arrived reads what has arrived since the last look.
func (s *script) arrived() (a arrivals) {
	s.t.Helper()
	synctest.Wait()
	for s.server.hasInput() {
		switch f := s.read().(type) {
		case *http2.MetaHeadersFrame:
			a.requests = append(a.requests, f.StreamID)
		case *http2.PingFrame:
			if !f.IsAck() {
				ping := *f
				a.pings = append(a.pings, &ping)
			}
		}
	}
	return a
}

// wantArrived checks what has arrived since the last look: that many PINGs, and
// requests on these streams. It returns the last of the PINGs.
func (s *script) wantArrived(pings int, requests ...uint32) *http2.PingFrame {
	s.t.Helper()
	a := s.arrived()
	if len(a.pings) != pings || fmt.Sprint(a.requests) != fmt.Sprint(requests) {
		s.t.Fatalf("%d PINGs and requests on %v arrived, want %d and %v", len(a.pings), a.requests, pings, requests)
	}
	if pings == 0 {
		return nil
	}
	return a.pings[pings-1]
}

func (s *script) ack(f *http2.PingFrame) {
	s.t.Helper()
	s.sent(s.fr.WritePing(true, f.Data))
}

// pending checks that the call has not ended.
func (c *call) pending() {
	c.t.Helper()
	synctest.Wait()
	select {
	case <-c.done:
		c.t.Fatalf("the request has ended: %v, %v", c.res, c.err)
	default:
	}
}

func TestP7_PingGoesOutWithARequestAfterSilence(t *testing.T) {
	const silence = 10 * time.Second
	t.Run("of a new connection", func(t *testing.T) {
		for d, pings := range map[time.Duration]int{0: 0, silence - 1: 0, silence: 1, time.Hour: 1} {
			converse(t, new(http.Transport), func(t *testing.T, s *script) {
				sleep(d)
				s.wantArrived(0)
				s.send(t.Context())
				s.wantArrived(pings, 1)
			})
		}
	})
	t.Run("since something was read", func(t *testing.T) {
		for d, pings := range map[time.Duration]int{silence - 1: 0, silence: 1} {
			converse(t, new(http.Transport), func(t *testing.T, s *script) {
				s.settings()
				first := s.send(t.Context())
				s.wantArrived(0, 1)
				sleep(9 * time.Second)
				s.headers(1)
				sleep(9 * time.Second)
				s.sent(s.fr.WriteData(1, true, []byte("x")))
				first.wantBody("x")
				sleep(d)
				s.send(t.Context())
				s.wantArrived(pings, 3)
			})
		}
	})
	t.Run("by the clock on the wall", func(t *testing.T) {
		// A jump ahead is what the machine's sleep looks like. When the clock
		// was set back there is no telling.
		for d, pings := range map[time.Duration]int{9 * time.Second: 1, 8 * time.Second: 0, -2 * time.Second: 1, -time.Hour: 1} {
			converse(t, new(http.Transport), func(t *testing.T, s *script) {
				s.settings()
				sleep(time.Second)
				s.conn.SetClock(d)
				for _, id := range []uint32{1, 3} {
					s.send(t.Context())
					s.wantArrived(pings, id)
					pings = 0
				}
			})
		}
	})
}

func TestP7_AnythingReadKeepsTheConnection(t *testing.T) {
	pong := append([]byte{0, 0, 8, byte(http2.FramePing), byte(http2.FlagPingAck), 0, 0, 0, 0}, make([]byte, 8)...)
	signs := map[string]func(*script, *http2.PingFrame) error{
		"acknowledgement": func(s *script, f *http2.PingFrame) error { return s.fr.WritePing(true, f.Data) },
		"another PING":    func(s *script, _ *http2.PingFrame) error { return s.fr.WritePing(false, [8]byte{1}) },
		"window update":   func(s *script, _ *http2.PingFrame) error { return s.fr.WriteWindowUpdate(0, 1) },
		"data of another stream": func(s *script, _ *http2.PingFrame) error {
			return s.fr.WriteData(1, false, []byte("x"))
		},
		"ORIGIN, which the engine does not see": func(s *script, _ *http2.PingFrame) error {
			return s.fr.WriteRawFrame(0xc, 0, 0, entry("https://b.example"))
		},
		"half a header": func(s *script, _ *http2.PingFrame) error {
			_, err := s.server.Write(pong[:4])
			return err
		},
	}
	for name, sign := range signs {
		t.Run(name, func(t *testing.T) {
			converse(t, new(http.Transport), func(t *testing.T, s *script) {
				s.settings()
				download := s.download()
				defer download.res.Body.Close()

				sleep(10 * time.Second)
				c := s.send(t.Context())
				ping := s.wantArrived(1, 3)
				sleep(15*time.Second - 1)
				s.sent(sign(s, ping))
				sleep(time.Hour)
				c.pending()
				s.wantArrived(0) // no request, no PING
				if name == "half a header" {
					s.server.Write(pong[4:])
				}
				s.respond(3, "200")
				c.wantStatus(200)
				if !s.conn.Reserve() {
					t.Error("the connection takes no more requests")
				}
			})
		})
	}
}

func TestP7_OneProbeForAllRequestsInASilence(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		sleep(10 * time.Second)
		var calls []*call
		for range 20 {
			calls = append(calls, s.send(t.Context()))
		}
		if a := s.arrived(); len(a.pings) != 1 || len(a.requests) != 20 {
			t.Errorf("%d PINGs arrived, and %d requests", len(a.pings), len(a.requests))
		}
		for id := uint32(41); id < 55; id += 2 {
			sleep(2 * time.Second)
			calls = append(calls, s.send(t.Context()))
			s.wantArrived(0, id)
		}
		sleep(time.Second) // 15 s since the first
		for _, c := range calls {
			c.wantLost()
		}
		s.wantEvents("settings 1000", "closed "+lostAfter15s)
	})
}

func TestP7_TheRequestNeedNotLastAsLongAsTheProbe(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c := s.send(ctx)
		sleep(5 * time.Second)
		if err := c.wantRetry(h2.RetryNever); err != context.DeadlineExceeded {
			t.Errorf("the request failed with %v", err)
		}
		other := s.send(t.Context())
		sleep(10*time.Second - 1)
		other.pending()
		sleep(1)
		other.wantLost()
	})
}

func TestP7_EachSilenceHasItsProbe(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		sleep(10 * time.Second)
		first := s.send(t.Context())
		s.ack(s.wantArrived(1, 1))
		s.respond(1, "200")
		first.wantStatus(200)

		sleep(10*time.Second - 1)
		second := s.send(t.Context())
		s.wantArrived(0, 3)
		sleep(1)
		third := s.send(t.Context())
		s.wantArrived(1, 5)
		sleep(15*time.Second - 1)
		second.pending()
		third.pending()
		sleep(1)
		second.wantLost()
		third.wantLost()
	})
}

// The first PING is never acknowledged, but that is not the last sign of life.
func TestP7_AProbeThatIsNotAcknowledgedDoesNotKeepTheNextWaiting(t *testing.T) {
	base := &http.Transport{HTTP2: &http.HTTP2Config{PingTimeout: time.Minute}}
	twoProbes := func(s *script) (first, second *call) {
		s.settings()
		sleep(10 * time.Second)
		first = s.send(s.t.Context())
		s.wantArrived(1, 1)
		sleep(time.Second)
		s.sent(s.fr.WriteWindowUpdate(0, 1))
		sleep(10 * time.Second)
		second = s.send(s.t.Context())
		s.wantArrived(1, 3)
		return first, second
	}
	converse(t, base, func(t *testing.T, s *script) {
		first, second := twoProbes(s)
		sleep(time.Minute - 1)
		first.pending()
		second.pending()
		sleep(1)
		first.wantLost()
		second.wantLost()
	})
	converse(t, base, func(t *testing.T, s *script) {
		first, second := twoProbes(s)
		start := time.Now()
		s.conn.Close()
		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %v", d)
		}
		first.wantRetry(h2.RetryNever)
		second.wantRetry(h2.RetryNever)
	})
}

// gRPC's servers close the connection at the fourth PING, each less than five
// minutes after the one before, between two answers.
func TestP7_NotTooManyPings(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		id := uint32(1)
		// after puts a request on the connection that is not answered, and
		// acknowledges the PING if there is one.
		after := func(d time.Duration, pings int) {
			t.Helper()
			sleep(d)
			s.send(t.Context())
			if ping := s.wantArrived(pings, id); ping != nil {
				s.ack(ping)
			}
			id += 2
		}
		after(11*time.Second, 1)
		after(11*time.Second, 1)
		after(11*time.Second, 0)
		after(5*time.Minute-11*time.Second-1, 0)
		after(1, 1)
		after(5*time.Minute-1, 0)
		s.respond(1, "200")
		after(11*time.Second, 1)
		after(11*time.Second, 1)
		after(11*time.Second, 0)
		s.headers(3)
		after(11*time.Second, 1)
		after(11*time.Second, 1)
		after(11*time.Second, 0)
		s.sent(s.fr.WriteData(3, false, []byte("x")))
		after(11*time.Second, 1)
	})
}

func TestP7_SendPingTimeout(t *testing.T) {
	const never = 1000 * time.Hour
	tests := []struct {
		conf time.Duration
		ping time.Duration // when the engine sends one by itself
		lost time.Duration // when a request made after 12 s fails
	}{
		{0, never, 27 * time.Second},
		{-1, never, 27 * time.Second},
		{5 * time.Second, 5 * time.Second, 20 * time.Second},
		{12 * time.Second, 12 * time.Second, 27 * time.Second},
		{time.Minute, time.Minute, 27 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.conf.String(), func(t *testing.T) {
			base := &http.Transport{HTTP2: &http.HTTP2Config{SendPingTimeout: tt.conf}}
			converse(t, base, func(t *testing.T, s *script) { // nobody is there
				s.settings()
				sleep(12 * time.Second)
				c := s.send(t.Context())
				sleep(tt.lost - 12*time.Second - 1)
				c.pending()
				sleep(1)
				c.wantLost()
			})
			converse(t, base, func(t *testing.T, s *script) { // somebody is
				s.settings()
				s.arrived()
				sleep(min(tt.ping, time.Hour) - 1)
				s.wantArrived(0)
				sleep(1)
				if tt.ping < never {
					s.ack(s.wantArrived(1))
				}
				sleep(9 * time.Second)
				for s.server.hasInput() {
					if f, ok := s.read().(*http2.PingFrame); ok {
						s.ack(f)
					}
				}
				c := s.send(t.Context())
				if a := s.arrived(); len(a.requests) != 1 {
					t.Errorf("%d requests arrived", len(a.requests))
				}
				s.respond(1, "200")
				c.wantStatus(200)
			})
		})
	}
}
