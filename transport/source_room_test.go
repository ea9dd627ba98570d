package transport

import (
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/synctest"
)

// A length is what the caller says. No room is made for what may never come.
func TestM6_AGreatLengthTakesNoRoom(t *testing.T) {
	for _, length := range []int64{1 << 30, math.MaxInt64} {
		o, _ := outgoingOf(t, strings.NewReader(strings.Repeat("x", 100)), length, math.MaxInt64)
		req, _ := o.next()
		for range 2 {
			if n, err := req.Body.Read(make([]byte, 10)); n != 10 || err != nil {
				t.Fatalf("read %d bytes, %v", n, err)
			}
		}
		if n := cap(o.source.kept); n > 128<<10 {
			t.Errorf("room for %d bytes is taken, to keep 20", n)
		}
	}
}

// What is kept is of no use once there will be no other attempt and this one has
// had it. Its answer may live for long.
func TestM6_NothingIsKeptForNobody(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(*outgoing, io.ReadCloser)
	}{
		{"settled last", func(o *outgoing, r io.ReadCloser) { io.ReadAll(r); o.settle(false) }},
		{"settled first", func(o *outgoing, r io.ReadCloser) { o.settle(false); io.ReadAll(r) }},
		{"settled halfway", func(o *outgoing, r io.ReadCloser) { io.CopyN(io.Discard, r, 3); o.settle(false); io.ReadAll(r) }},
		{"closed halfway", func(o *outgoing, r io.ReadCloser) { io.CopyN(io.Discard, r, 3); r.Close(); o.settle(false) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, _ := outgoingOf(t, strings.NewReader("0123456789"), 10, 64)
			req, _ := o.next()
			test.end(&o, req.Body)
			if n := cap(o.source.kept); n > 0 {
				t.Errorf("%d bytes are kept", n)
			}
		})
	}
	t.Run("closed under a Read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o, body, _ := writtenTo(t, 8)
			r := attemptOf(o)
			r.begin(8)
			r.Close()
			o.settle(false)
			body.wantCloses(t, 1)
			if n := cap(o.source.kept); n > 0 {
				t.Errorf("%d bytes are kept", n)
			}
		})
	})
}

// The last attempt may be net/http's, which reads a body to its end to say how much
// too long it is.
func TestM6_WhatTheLastAttemptReadsIsNotKept(t *testing.T) {
	const size = 10 << 20
	o, _ := outgoingOf(t, strings.NewReader(strings.Repeat("x", size)), 8, 64)
	req, _ := o.next()
	o.settle(false)
	for got := 0; got < size; {
		n, err := req.Body.Read(make([]byte, 32<<10))
		if got += n; err != nil {
			t.Fatalf("%v after %d bytes", err, got)
		}
		if n := cap(o.source.kept); n > 128<<10 {
			t.Fatalf("there is room for %d bytes", n)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A Read that says to have got what it cannot have is the request's failure, and
// nobody else's.
func TestM6_ACountOutOfRange(t *testing.T) {
	for _, excess := range []int{-1000, 1, 1 << 20} {
		o, _ := outgoingOf(t, readerFunc(func(p []byte) (int, error) { return len(p) + excess, nil }), 20, 64)
		req, _ := o.next()
		n, err := req.Body.Read(make([]byte, 4))
		if n != 0 || err == nil || !errors.Is(o.failure(), err) {
			t.Errorf("%d more than asked for: read %d bytes, %v", excess, n, err)
		}
		req.Body.Close()
		o.settle(false)
	}
}

// A goroutine that was started to read may get to run when all is over.
func TestM6_ABodyIsNotReadAfterItWasClosed(t *testing.T) {
	read := false
	o, body := outgoingOf(t, readerFunc(func([]byte) (int, error) { read = true; return 0, io.EOF }), 8, 64)
	req, _ := o.next()
	req.Body.Close()
	o.settle(false)
	o.source.fetch(make([]byte, 8))
	if n := body.closes.Load(); read || n != 1 {
		t.Errorf("read %v, closed %d times", read, n)
	}
}
