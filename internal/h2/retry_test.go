package h2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/h2"
)

// These provoke each error that RetryOf knows in the engine itself, so that
// they fail if golang.org/x/net changes one.

func TestRetryUnsentOnUnusableConn(t *testing.T) {
	t.Run("GOAWAY", func(t *testing.T) {
		converse(t, new(http.Transport), func(t *testing.T, s *script) {
			s.settings()
			s.sent(s.fr.WriteGoAway(1, http2.ErrCodeNo, nil))
			s.send(t.Context()).wantRetry(h2.RetryUnsent)
		})
	})
	t.Run("closed after a request", func(t *testing.T) {
		converse(t, new(http.Transport), func(t *testing.T, s *script) {
			s.settings()
			c := s.send(t.Context())
			s.wantRequest(1)
			s.respond(1, "200")
			c.wantStatus(200)
			s.sent(s.server.Close())
			s.send(t.Context()).wantRetry(h2.RetryUnsent)
		})
	})
	t.Run("limit lowered after Reserve", func(t *testing.T) {
		converse(t, new(http.Transport), func(t *testing.T, s *script) {
			s.settings()
			for range 2 {
				if !s.conn.Reserve() {
					t.Fatal("Reserve refused")
				}
			}
			s.settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
			s.send(t.Context()).wantRetry(h2.RetryUnsent)
		})
	})
}

func TestRetryUnsentOnConnThatWasNeverUsed(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		if !s.conn.Reserve() {
			t.Fatal("Reserve refused")
		}
		s.sent(s.server.Close())
		s.send(t.Context()).wantRetry(h2.RetryUnsent)
	})
}

func TestRetryUnsentAboveLastStreamID(t *testing.T) {
	for _, code := range []http2.ErrCode{http2.ErrCodeNo, http2.ErrCodeEnhanceYourCalm} {
		converse(t, new(http.Transport), func(t *testing.T, s *script) {
			s.settings()
			first := s.send(t.Context())
			s.wantRequest(1)
			second := s.start(request(t, t.Context(), http.MethodPost, strings.NewReader("body")))
			s.wantRequest(3)
			s.sent(s.fr.WriteGoAway(1, code, nil))
			second.wantRetry(h2.RetryUnsent)

			// The first may have been processed.
			s.sent(s.server.Close())
			first.wantRetry(h2.RetryNever)
		})
	}
}

func TestRetryNeverWhenTheFirstStreamIsTurnedAway(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		c := s.send(t.Context())
		s.wantRequest(1)
		s.sent(s.fr.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil))
		c.wantRetry(h2.RetryNever)
	})
}

func TestRetryUnsentOnRefusedStream(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		c := s.start(request(t, t.Context(), http.MethodPost, strings.NewReader("body")))
		s.wantRequest(1)
		s.sent(s.fr.WriteRSTStream(1, http2.ErrCodeRefusedStream))
		err := c.wantRetry(h2.RetryUnsent)
		if got := h2.RetryOf(fmt.Errorf("wrapped: %w", err)); got != h2.RetryUnsent {
			t.Errorf("RetryOf of the wrapped error = %v", got)
		}
	})
}

func TestRetryIdempotentWhenTheServerFellSilent(t *testing.T) {
	for name, conf := range map[string]http.HTTP2Config{
		"found by a request":             {},
		"found by the engine's own PING": {SendPingTimeout: 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, &http.Transport{HTTP2: &conf}, func(t *testing.T, s *script) {
				s.settings()
				time.Sleep(10 * time.Second)
				c := s.start(request(t, t.Context(), http.MethodPost, strings.NewReader("body")))
				err := c.wantRetry(h2.RetryIdempotent)
				if got := h2.RetryOf(fmt.Errorf("wrapped: %w", err)); got != h2.RetryIdempotent {
					t.Errorf("RetryOf of the wrapped error = %v", got)
				}
			})
		})
	}
}

func TestRetryNeverWhenTheRequestMayHaveBeenProcessed(t *testing.T) {
	tests := map[string]func(*script){
		"connection cut": func(s *script) { s.sent(s.server.Close()) },
		"closed":         func(s *script) { s.sent(s.conn.Close()) },
		"canceled by the server": func(s *script) {
			s.sent(s.fr.WriteRSTStream(1, http2.ErrCodeCancel))
		},
		"GOAWAY, then cut": func(s *script) {
			s.sent(s.fr.WriteGoAway(1, http2.ErrCodeNo, nil))
			s.sent(s.server.Close())
		},
	}
	for name, end := range tests {
		t.Run(name, func(t *testing.T) {
			converse(t, new(http.Transport), func(t *testing.T, s *script) {
				s.settings()
				c := s.send(t.Context())
				s.wantRequest(1)
				end(s)
				c.wantRetry(h2.RetryNever)
			})
		})
	}
}

func TestRetryNeverOnOtherErrors(t *testing.T) {
	for _, err := range []error{
		nil, io.EOF, context.Canceled, errors.New("http2: client connection lost?"),
		// The engine's own, about what the server has answered.
		http2.StreamError{StreamID: 1, Code: http2.ErrCodeProtocol, Cause: errors.New("malformed")},
		http2.StreamError{StreamID: 1, Code: http2.ErrCodeProtocol},
	} {
		if got := h2.RetryOf(err); got != h2.RetryNever {
			t.Errorf("RetryOf(%v) = %v", err, got)
		}
	}
	if h2.RetryNever.String() != "never" || h2.RetryUnsent.String() != "unsent" {
		t.Error("the names of Retry have changed")
	}
}
