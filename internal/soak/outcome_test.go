package soak

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/pool"
	"github.com/h2coalesce/h2coalesce/transport"
)

// outcomeClosed is the outcome of requests that come after Close.
const outcomeClosed = "transport closed"

// judge returns the kind of an error. One that nothing which has happened
// explains is a breach.
func (w *worker) judge(r *request, err error) string {
	if w.stopped.Load() {
		return "ended by the watchdog"
	}
	kind, expected := w.kindOf(r, err)
	if !expected {
		w.world.ledger.breach(r.id, "an unexpected error: %v (%T)", err, err)
		return "unexpected: " + err.Error()
	}
	return kind
}

// kindOf names an error, and reports whether it may be what becomes of r.
func (w *worker) kindOf(r *request, err error) (kind string, expected bool) {
	if m, ok := errors.AsType[*transport.MisdirectedError](err); ok {
		kind, expected = w.kindOf(r, m.Err)
		return "421, then " + kind, expected
	}
	if gone, ok := strings.CutPrefix(err.Error(), "h2coalesce: cannot send the request again, its body was read"); ok && gone != "" {
		return "not processed, and the body is gone", r.once()
	}
	var reset http2.StreamError
	var uncovered x509.HostnameError
	switch {
	case errors.Is(err, transport.ErrClosed):
		return outcomeClosed, w.closing.Load()
	case errors.Is(err, context.Canceled):
		return "canceled", r.patience > 0 && !r.deadline
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline exceeded", r.patience > 0 && r.deadline
	case errors.As(err, &uncovered):
		return "no certificate for the host", r.host.stray
	case errors.Is(err, errLookup):
		return "look-up failed", true
	case errors.As(err, &reset):
		// What has no such cause is the engine's complaint about the server.
		return "reset by the server: " + reset.Code.String(), strings.Contains(err.Error(), "received from peer")
	}
	// Without HTTP/2 a request can only be refused by ending its connection.
	cut := w.world.rough.Load() || r.host.mixed()
	for _, known := range [...]struct {
		text, kind string
		expected   bool
	}{
		{"http2: Transport received GOAWAY from server ErrCode:", "turned away by GOAWAY", true},
		{"http2: server sent GOAWAY and closed the connection", "connection cut after GOAWAY", cut},
		{"http2: client connection lost", "no answer to PING", cut},
		// The engine says so also when a write has failed before the read.
		{"http2: client connection force closed via ClientConn.Close", "connection cut", cut},
		{"http2: Transport: cannot retry err [", "not processed, and the body is gone (net/http)", r.host.mixed()},
		{"http: server closed idle connection", "idle connection closed (net/http)", r.host.mixed()},
	} {
		if strings.HasPrefix(err.Error(), known.text) {
			return known.kind, known.expected
		}
	}
	if errors.Is(err, pool.ErrTurnedAway) {
		return "turned away without a word", cut
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return "dial failed", false // somebody listens at one of the addresses
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection cut", cut
	}
	return "", false
}
