package h2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/h2"
)

const lostAfter15s = "http2: client connection lost: nothing was received within 15s of a PING"

// wantLost checks that the call has ended by now because the connection was
// lost.
func (c *call) wantLost() {
	c.t.Helper()
	synctest.Wait()
	select {
	case <-c.done:
	default:
		c.t.Fatal("the request has not ended")
	}
	c.wantFailed()
}

// wantFailed waits for the call to end because the connection was lost.
func (c *call) wantFailed() {
	c.t.Helper()
	if err := c.wantRetry(h2.RetryIdempotent); !strings.HasPrefix(err.Error(), "http2: client connection lost") {
		c.t.Errorf("the request failed with %v", err)
	}
}

func TestP7_NothingReadIsTheEnd(t *testing.T) {
	for conf, timeout := range map[time.Duration]time.Duration{
		0:               15 * time.Second,
		-1:              15 * time.Second, // as the engine has it
		2 * time.Second: 2 * time.Second,
		time.Minute:     time.Minute,
	} {
		base := &http.Transport{HTTP2: &http.HTTP2Config{PingTimeout: conf}}
		converse(t, base, func(t *testing.T, s *script) {
			s.settings()
			download := s.download()
			defer download.res.Body.Close()
			early := s.send(t.Context())
			s.wantArrived(0, 3)

			sleep(12 * time.Second)
			c := s.send(t.Context())
			s.wantArrived(1, 5)
			sleep(timeout - 1)
			c.pending()
			early.pending()
			s.wantEvents("settings 1000")
			sleep(1)
			c.wantLost()
			early.wantLost()
			want := fmt.Sprintf("http2: client connection lost: nothing was received within %v of a PING", timeout)
			if c.err.Error() != want {
				t.Errorf("the request failed with %q", c.err)
			}
			if _, err := io.ReadAll(download.res.Body); err == nil || err.Error() != want {
				t.Errorf("the download failed with %v", err)
			}
			s.wantEvents("settings 1000", "closed "+want)
			if s.conn.Reserve() {
				t.Error("the connection takes more requests")
			}
			s.send(t.Context()).wantRetry(h2.RetryUnsent)
		})
	}
}

// What net/http reports when its own check finds a connection lost is not a
// timeout, nor is it anything else that can be asked for.
func TestP7_TheErrorIsNoTimeout(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		sleep(10 * time.Second)
		c := s.send(t.Context())
		sleep(15 * time.Second)
		c.wantLost()
		var timeout net.Error
		if errors.As(c.err, &timeout) || errors.Is(c.err, context.DeadlineExceeded) || errors.Is(c.err, net.ErrClosed) {
			t.Errorf("%v is more than net/http's error", c.err)
		}
	})
}

// TestP7_ServerThatReadsNothing is not in a bubble, whose clock stands still
// while several goroutines want to write: they wait for a mutex.
func TestP7_ServerThatReadsNothing(t *testing.T) {
	const timeout = 50 * time.Millisecond
	lost := fmt.Sprintf("closed http2: client connection lost: nothing was received within %v of a PING", timeout)
	tests := []struct {
		name    string
		ask     bool // the server wants SETTINGS acknowledged: the engine's reading goroutine waits to write, too
		timeout time.Duration
		end     func(*script) error
		event   string // not told: there are several
	}{
		{"lost", false, timeout, nil, lost},
		{"lost, asking", true, timeout, nil, lost},
		{"Close", false, time.Hour, func(s *script) error { return s.conn.Close() }, closedByUs},
		{"Close, asking", true, time.Hour, func(s *script) error { return s.conn.Close() }, closedByUs},
		{"hung up", false, time.Hour, func(s *script) error { return s.server.Close() }, ""},
		{"hung up, asking", true, time.Hour, func(s *script) error { return s.server.Close() }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{t: t, events: new(eventLog)}
			s.client, s.server = memPipe()
			base := &http.Transport{HTTP2: &http.HTTP2Config{PingTimeout: tt.timeout}}
			s.conn = newConn(t, base, s.client, s.events)
			defer s.close()
			s.accept(s.server)
			s.sendOnly(s.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
			for f := s.read(); !f.Header().Flags.Has(http2.FlagSettingsAck); {
				f = s.read() // the client has no more to say of itself
			}
			early := s.send(t.Context())
			s.wantRequest(1)
			body, write := io.Pipe()
			upload := s.start(request(t, t.Context(), http.MethodPost, body))
			s.wantRequest(3)
			s.client.fill()
			go io.WriteString(write, strings.Repeat("x", 1<<16))
			for !s.client.isStuck() {
				runtime.Gosched()
			}

			events := []string{"settings 1000", tt.event}
			if tt.ask {
				events = []string{"settings 1000", "settings 999", tt.event}
				s.sendOnly(s.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 999}))
				for len(s.events.all()) < 2 {
					runtime.Gosched()
				}
			}

			start := time.Now()
			s.conn.SetClock(10 * time.Second)
			late := []*call{s.send(t.Context()), s.send(t.Context())}
			if tt.end != nil {
				if err := tt.end(s); err != nil {
					t.Errorf("the end: %v", err)
				}
			}
			for _, c := range []*call{early, upload} {
				if tt.event == lost {
					c.wantFailed()
				} else {
					c.wantRetry(h2.RetryNever)
				}
			}
			for _, c := range late { // of which one may have got as far as the engine's queue
				if <-c.done; c.err == nil || tt.event == lost && h2.RetryOf(c.err) == h2.RetryNever {
					t.Errorf("a request that waited to be sent ended with %v", c.err)
				}
			}
			if d := time.Since(start); tt.event == lost && d < timeout {
				t.Errorf("the connection was lost after %v", d)
			}
			if diff := cmp.Diff(events, s.events.all()); diff != "" && tt.event != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestP7_TheEndDuringAProbe(t *testing.T) {
	tests := []struct {
		name   string
		end    func(*script) error
		events string
	}{
		{"Close", func(s *script) error { return s.conn.Close() }, closedByUs},
		{"Close twice", func(s *script) error { s.conn.Close(); return s.conn.Close() }, closedByUs},
		{"by the server", func(s *script) error { return s.server.Close() }, "closed EOF"},
		{"by an error", func(s *script) error { return s.fr.WriteRawFrame(http2.FrameData, 0, 0, nil) }, closedByUs},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			converse(t, new(http.Transport), func(t *testing.T, s *script) {
				s.settings()
				sleep(10 * time.Second)
				c := s.send(t.Context())
				sleep(time.Second)
				start := time.Now()
				s.sent(tt.end(s))
				c.wantRetry(h2.RetryNever)
				s.wantEvents("settings 1000", tt.events)
				if d := time.Since(start); d != 0 {
					t.Errorf("it took %v", d)
				}
				// converse's bubble does not end while a goroutine of the
				// probe's is left.
			})
		})
	}
	t.Run("answered", func(t *testing.T) {
		converse(t, new(http.Transport), func(t *testing.T, s *script) {
			s.settings()
			sleep(10 * time.Second)
			c := s.send(t.Context())
			s.wantArrived(1, 1)
			s.respond(1, "200") // but no acknowledgement
			c.wantStatus(200)
			if err := s.conn.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			s.wantEvents("settings 1000", closedByUs)
		})
	})
}

// A request that comes when the connection has ended is for another. No probe
// begins that Close would not wait for.
func TestP7_NoProbeAfterClose(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		sleep(10 * time.Second)
		s.conn.Close()
		s.conn.SetClock(10 * time.Second)
		s.send(t.Context()).wantRetry(h2.RetryUnsent)
		if n := s.conn.Pings(); n != 0 {
			t.Errorf("%d PINGs were sent", n)
		}
		s.wantEvents("settings 1000", closedByUs)
	})
}

// slowBody closes when it is told to.
type slowBody struct {
	io.Reader
	close chan struct{}
}

func (b slowBody) Close() error {
	<-b.close
	return nil
}

func TestP7_ACanceledRequestStaysCanceled(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		body, write := io.Pipe()
		defer write.Close()
		closing := make(chan struct{})
		c := s.start(request(t, ctx, http.MethodPost, slowBody{body, closing}))
		sleep(15 * time.Second)
		s.wantEvents("settings 1000", "closed "+lostAfter15s)
		c.pending() // the engine waits for the body to be closed
		close(closing)
		if err := c.wantRetry(h2.RetryNever); err != context.DeadlineExceeded {
			t.Errorf("the request failed with %v", err)
		}
	})
}

// The bytes that TLS would like to send at the end have no place to go.
func TestP7_OverTLSTheEndIsNotDelayed(t *testing.T) {
	overTLS(t, func(t *testing.T, s *script) {
		s.settings()
		sleep(10 * time.Second)
		c := s.send(t.Context())
		s.wantRequest(1)
		synctest.Wait()
		s.client.fill()
		sleep(15*time.Second - 1)
		c.pending()
		sleep(1)
		c.wantLost()
		s.wantEvents("settings 1000", "closed "+lostAfter15s)
	})
}

func TestP7_CloseDuringAProbeTellsThePeer(t *testing.T) {
	overTLS(t, func(t *testing.T, s *script) {
		s.settings()
		sleep(10 * time.Second)
		s.send(t.Context())
		s.wantRequest(1)
		sleep(time.Second)
		s.conn.Close()
		var err error
		for err == nil {
			_, err = s.fr.ReadFrame()
		}
		if err != io.EOF {
			t.Errorf("the server read %v, want EOF", err)
		}
	})
}

func TestP7_CloseWaitsForTheProbe(t *testing.T) {
	for range 50 {
		converse(t, new(http.Transport), func(t *testing.T, s *script) {
			s.settings()
			sleep(10 * time.Second)
			s.send(t.Context())
			s.wantArrived(1, 1)
			s.conn.Close()
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			if strings.Contains(string(stacks), "h2.(*Conn).probe") {
				t.Error("the probe goes on after Close")
			}
		})
	}
}

func TestP7_CloseAmongRequests(t *testing.T) {
	for range 100 {
		client, server := memPipe()
		conn := newConn(t, new(http.Transport), client, new(eventLog))
		conn.SetClock(10 * time.Second)
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				if _, err := conn.RoundTrip(request(t, t.Context(), http.MethodGet, nil)); err == nil {
					t.Error("a request was answered")
				}
			})
		}
		conn.Close()
		calls.Wait()
		server.Close()
	}
}

// A PING that cannot be sent says nothing of the server.
func TestP7_APingThatCannotBeSentIsNoProbe(t *testing.T) {
	for range 50 {
		converse(t, new(http.Transport), func(t *testing.T, s *script) {
			s.settings()
			sleep(10 * time.Second)
			s.client.out.end(nil, io.ErrClosedPipe)
			if err := s.send(t.Context()).wantRetry(h2.RetryNever); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("the request failed with %v", err)
			}
			s.wantEvents("settings 1000", closedByUs)
		})
	}
}
