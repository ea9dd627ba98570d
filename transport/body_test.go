package transport

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"pgregory.net/rapid"
)

// callersBody is a body as a caller of RoundTrip may have it. It notices what
// must not be done with it.
type callersBody struct {
	io.Reader
	reading atomic.Bool
	closes  atomic.Int32
	t       interface{ Errorf(string, ...any) }
}

func (b *callersBody) Read(p []byte) (int, error) {
	if b.reading.Swap(true) {
		b.t.Errorf("two senders read the body at once")
	}
	defer b.reading.Store(false)
	return b.Reader.Read(p)
}

func (b *callersBody) Close() error {
	b.closes.Add(1)
	return nil
}

func outgoingOf(t interface{ Errorf(string, ...any) }, r io.Reader, length, keep int64) (outgoing, *callersBody) {
	body := &callersBody{Reader: r, t: t}
	req, _ := http.NewRequest(http.MethodPost, "https://example.com/", nil)
	req.Body, req.ContentLength = body, length
	return newOutgoing(req, keep), body
}

func TestM6_WhatCanBeReplayed(t *testing.T) {
	for _, test := range []struct {
		name           string
		length, keep   int64
		replay, before bool
	}{
		{"short", 10, 64, true, true},
		{"as long as is kept", 64, 64, true, true},
		{"longer", 65, 64, false, true},
		{"of unknown length", -1, 64, false, true},
		{"of unset length", 0, 64, false, true},
		{"nothing kept", 10, -1, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, _ := outgoingOf(t, strings.NewReader(strings.Repeat("x", 10)), test.length, test.keep)
			if o.replayable() != test.replay || o.repeatable() != test.before {
				t.Errorf("replayable %v, repeatable before it was read %v", o.replayable(), o.repeatable())
			}
			req, _ := o.next()
			io.ReadAll(req.Body)
			if o.repeatable() != test.replay {
				t.Errorf("repeatable after it was read %v", o.repeatable())
			}
		})
	}
	get, _ := http.NewRequest(http.MethodGet, "https://example.com/", nil)
	post, _ := http.NewRequest(http.MethodPost, "https://example.com/", strings.NewReader("has GetBody"))
	empty, _ := http.NewRequest(http.MethodPost, "https://example.com/", http.NoBody)
	for _, req := range []*http.Request{get, post, empty} {
		if o := newOutgoing(req, -1); !o.replayable() {
			t.Errorf("%v cannot be replayed", req)
		}
	}
}

// TestM6_EveryAttemptReadsTheWholeBody gives up attempts anywhere, and lets
// each read in pieces of any size.
func TestM6_EveryAttemptReadsTheWholeBody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "body")
		var r io.Reader = bytes.NewReader(want)
		if rapid.Bool().Draw(t, "in small pieces") {
			r = iotest.OneByteReader(r)
		}
		if rapid.Bool().Draw(t, "EOF with data") {
			r = iotest.DataErrReader(r)
		}
		o, body := outgoingOf(t, r, int64(len(want)), 200)
		for range rapid.IntRange(0, 3).Draw(t, "attempts given up") {
			req, _ := o.next()
			n := rapid.IntRange(0, len(want)).Draw(t, "read before")
			got := make([]byte, n)
			if _, err := io.ReadFull(req.Body, got); err != nil || !bytes.Equal(got, want[:n]) {
				t.Fatalf("read %q, %v, want %q", got, err, want[:n])
			}
			req.Body.Close()
			if _, err := req.Body.Read(make([]byte, 1)); err == nil {
				t.Fatal("an attempt that was given up can still read")
			}
		}
		req, _ := o.next()
		got, err := io.ReadAll(req.Body)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
		if body.closes.Load() != 0 {
			t.Fatal("closed before the last attempt ended")
		}
		if rapid.Bool().Draw(t, "settled first") {
			o.settle(false)
			req.Body.Close()
		} else {
			req.Body.Close()
			o.settle(false)
		}
		req.Body.Close()
		if n := body.closes.Load(); n != 1 {
			t.Fatalf("closed %d times", n)
		}
	})
}

// TestM6_AnAttemptThatWaitsForTheCallerIsLetGo gives up an attempt while it
// waits for the caller to write. What the caller writes then is the next one's.
func TestM6_AnAttemptThatWaitsForTheCallerIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pr, pw := io.Pipe()
		o, body := outgoingOf(t, pr, 10, 64)
		first, _ := o.next()
		go first.Body.Read(make([]byte, 10))
		synctest.Wait()
		first.Body.Close()
		second, _ := o.next()
		got := make(chan string)
		go func() {
			b, err := io.ReadAll(second.Body)
			if err != nil {
				t.Error(err)
			}
			got <- string(b)
		}()
		synctest.Wait()
		io.WriteString(pw, "01234")
		io.WriteString(pw, "56789")
		pw.Close()
		if s := <-got; s != "0123456789" {
			t.Errorf("the second attempt read %q", s)
		}
		second.Body.Close()
		o.settle(false)
		if n := body.closes.Load(); n != 1 {
			t.Errorf("closed %d times", n)
		}
	})
}

func TestM6_AnErrorOfTheBodyIsEveryAttempts(t *testing.T) {
	broken := errors.New("broken")
	o, _ := outgoingOf(t, io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)), 10, 64)
	for range 2 {
		req, _ := o.next()
		if got, err := io.ReadAll(req.Body); string(got) != "abc" || !errors.Is(err, broken) {
			t.Errorf("read %q, %v", got, err)
		}
		req.Body.Close()
	}
}

func TestABodyThatNeverWasSentIsClosed(t *testing.T) {
	o, body := outgoingOf(t, strings.NewReader("abc"), 3, 64)
	o.settle(false)
	if n := body.closes.Load(); n != 1 {
		t.Errorf("without GetBody: closed %d times", n)
	}
	req, _ := http.NewRequest(http.MethodPost, "https://example.com/", strings.NewReader("abc"))
	body = &callersBody{Reader: req.Body, t: t}
	req.Body = body
	o = newOutgoing(req, 64)
	o.settle(false)
	if n := body.closes.Load(); n != 1 {
		t.Errorf("with GetBody: closed %d times", n)
	}
}
