package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// uploadSeen is all that a caller sees of an upload.
type uploadSeen struct {
	Answer  string
	Err     string // of RoundTrip, or of the answer's body
	Timeout bool
	Took    time.Duration
	Closes  int32    // of the body
	Events  []string // sorted: the answer may begin while the end of the request is being told
}

// TestD_UploadsAreNetHTTPs sends uploads that go well and others, by net/http and by
// a Transport, with a body that is kept and one that is not, and compares what the
// caller sees.
func TestD_UploadsAreNetHTTPs(t *testing.T) {
	after4 := func(then func(http.ResponseWriter, *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			io.ReadFull(q.Body, make([]byte, 4))
			then(w, q)
		}
	}
	waits := func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }
	connCut := func(_ http.ResponseWriter, q *http.Request) {
		c, _ := lab.FromRequest(q)
		c.Cut()
	}
	broken := errors.New("broken")
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		body    string // what there is of 8 bytes; the writer waits if there are fewer
		edit    func(*http.Request) *http.Request
		err     error // of the body behind that
	}{
		{name: "whole", handler: echo, body: "01234567", err: io.EOF},
		{name: "broken", handler: echo, body: "0123", err: broken},
		{name: "broken at once", handler: echo, err: broken},
		{name: "Expect", handler: echo, body: "01234567", err: io.EOF, edit: expects},
		{name: "Expect, refused", handler: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusExpectationFailed) }, edit: expects},
		{name: "canceled", handler: after4(waits), body: "0123", edit: func(q *http.Request) *http.Request {
			ctx, cancel := context.WithCancelCause(q.Context())
			time.AfterFunc(time.Second, func() { cancel(broken) })
			return q.WithContext(ctx)
		}},
		{name: "Request.Cancel", handler: after4(waits), body: "0123", edit: func(q *http.Request) *http.Request {
			cancel := make(chan struct{})
			time.AfterFunc(time.Second, func() { close(cancel) })
			q.Cancel = cancel //lint:ignore SA1019 a drop-in heeds it
			return q
		}},
		{name: "deadline", handler: after4(waits), body: "0123", edit: func(q *http.Request) *http.Request {
			ctx, cancel := context.WithTimeout(q.Context(), time.Second)
			context.AfterFunc(ctx, cancel)
			return q.WithContext(ctx)
		}},
		{name: "ResponseHeaderTimeout", handler: after4(waits), body: "01234567", err: io.EOF},
		{name: "refused early", handler: after4(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }), body: "0123"},
		{name: "answered early", handler: after4(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "yes") }), body: "0123"},
		{name: "cut", handler: after4(connCut), body: "0123"},
		{name: "cut in the answer", handler: after4(func(w http.ResponseWriter, q *http.Request) {
			io.WriteString(w, "yes, ")
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
			connCut(w, q)
		}), body: "0123"},
	} {
		for _, length := range []int64{8, -1} {
			t.Run(fmt.Sprint(test.name, " ", length), func(t *testing.T) {
				var seen [2]uploadSeen
				for i := range seen {
					servers := map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, Handler: test.handler}}
					withClient(t, i == 0, servers, func(c client) {
						c.base.ExpectContinueTimeout = time.Minute
						c.base.ResponseHeaderTimeout = time.Minute
						pr, pw := io.Pipe()
						defer pw.Close()
						q := c.request(c.t.Context(), http.MethodPost, "a.example.com", nil)
						q.ContentLength = length
						if test.edit != nil {
							q = test.edit(q)
						}
						go func() {
							io.WriteString(pw, test.body)
							if test.err != nil {
								pw.CloseWithError(test.err)
							}
						}()
						seen[i] = c.see(q, pr)
						c.settled()
					})
				}
				if diff := cmp.Diff(seen[0], seen[1]); diff != "" {
					t.Errorf("(-net/http +ours):\n%s", diff)
				}
			})
		}
	}
}

// see sends q with a body and returns what is to be seen of that.
func (c client) see(q *http.Request, body *io.PipeReader) (seen uploadSeen) {
	var mu sync.Mutex
	add := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		seen.Events = append(seen.Events, fmt.Sprintf(format, args...))
	}
	q = q.WithContext(httptrace.WithClientTrace(q.Context(), &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { add("GotConn") },
		WroteHeaders:         func() { add("WroteHeaders") },
		Wait100Continue:      func() { add("Wait100Continue") },
		Got100Continue:       func() { add("Got100Continue") },
		WroteRequest:         func(i httptrace.WroteRequestInfo) { add("WroteRequest %v", i.Err) },
		GotFirstResponseByte: func() { add("GotFirstResponseByte") },
	}))
	counted := &countedPipe{PipeReader: body}
	q.Body = counted
	began := time.Now()
	res, err := c.RoundTrip(q)
	seen.Took = time.Since(began)
	if err == nil {
		var b []byte
		b, err = io.ReadAll(res.Body)
		synctest.Wait() // what the server does to the upload comes before the Close
		res.Body.Close()
		seen.Answer = fmt.Sprintf("%s %q, its own request %v", res.Status, b, res.Request == q)
	}
	if err != nil {
		seen.Err = err.Error()
		timeout, ok := err.(interface{ Timeout() bool })
		seen.Timeout = ok && timeout.Timeout()
	}
	synctest.Wait()
	seen.Closes = counted.closes.Load()
	slices.Sort(seen.Events)
	return seen
}

// countedPipe counts how often it is closed.
type countedPipe struct {
	*io.PipeReader
	closes atomic.Int32
}

func (p *countedPipe) Close() error {
	p.closes.Add(1)
	return p.PipeReader.Close()
}

func expects(q *http.Request) *http.Request {
	q.Header.Set("Expect", "100-continue")
	return q
}
