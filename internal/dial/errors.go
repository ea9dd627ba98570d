package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// dialError returns the error of a dial to addr that ctxErr has ended, in the
// form of package net's.
func dialError(addr string, ctxErr error) error {
	e := &net.OpError{Op: "dial", Net: "tcp", Err: netError(ctxErr)}
	if ap, perr := netip.ParseAddrPort(addr); perr == nil {
		e.Addr = net.TCPAddrFromAddrPort(ap)
	}
	return e
}

// netError returns what package net makes of a context's error.
func netError(err error) error {
	switch err {
	case context.Canceled:
		return canceledError{}
	case context.DeadlineExceeded:
		return timeoutError{}
	}
	return err
}

// canceledError is package net's, which it does not export.
type canceledError struct{}

func (canceledError) Error() string        { return "operation was canceled" }
func (canceledError) Is(target error) bool { return target == context.Canceled }

// timeoutError is package net's, which it does not export.
type timeoutError struct{}

func (timeoutError) Error() string        { return "i/o timeout" }
func (timeoutError) Timeout() bool        { return true }
func (timeoutError) Temporary() bool      { return true }
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// joinAttempts returns one error for the attempts that were made. It is a
// *net.OpError at the top, which callers of net/http assert on, and names every
// address; the error of a single attempt is passed on as it is.
func joinAttempts(addrs []string, errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return &net.OpError{Op: "dial", Net: "tcp", Err: &attemptsError{addrs[:len(errs)], errs}}
}

// An attemptsError holds the errors of several attempts in the order in which
// they were started.
type attemptsError struct {
	addrs []string
	errs  []error
}

func (e *attemptsError) Error() string {
	texts := make([]string, len(e.errs))
	for i, err := range e.errs {
		// Package net's own "dial tcp ADDRESS: " would say everything twice.
		if op, ok := err.(*net.OpError); ok && op.Err != nil {
			err = op.Err
		}
		texts[i] = e.addrs[i] + ": " + err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e *attemptsError) Unwrap() []error { return e.errs }

// Timeout is true if any address might have answered given more time.
func (e *attemptsError) Timeout() bool {
	return slices.ContainsFunc(e.errs, isTimeout)
}

// Temporary is what net.OpError.Temporary asks. Timeouts are all that package
// net calls temporary in a dial.
func (e *attemptsError) Temporary() bool { return e.Timeout() }

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// handshakeTimeoutError is net/http's error for TLSHandshakeTimeout, which it
// does not export.
type handshakeTimeoutError struct{}

func (handshakeTimeoutError) Error() string   { return "net/http: TLS handshake timeout" }
func (handshakeTimeoutError) Timeout() bool   { return true }
func (handshakeTimeoutError) Temporary() bool { return true }
