package soak

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/transport"
)

// replayLimit is the transport's MaxReplayBytes.
const replayLimit = 16 << 10

// request is what a worker asks for.
type request struct {
	id     uint64
	host   *host
	method string
	body   bodyKind
	size   int64         // of the body
	wait   time.Duration // before each read of the body
	expect bool          // with "Expect: 100-continue"

	partition string
	own       bool // WithoutCoalescing
	traced    bool // WithTrace

	patience time.Duration // how long it is waited for; 0: until it ends
	deadline bool          // by a deadline, or else by cancellation
	reading  reading
}

type bodyKind int

const (
	bodyNone    bodyKind = iota
	bodyBytes            // with GetBody, as of a bytes.Reader
	bodyKnown            // a stream of known length
	bodyUnknown          // a stream of unknown length
)

// reading is how the caller treats the answer's body.
type reading int

const (
	readAll reading = iota
	readSlowly
	readPart // and close it
)

// draw decides on a request.
func (w *world) draw(d dice) *request {
	// Some hosts are wanted more than others.
	r := &request{host: w.hosts[int(float64(len(w.hosts))*d.Float64()*d.Float64())]}
	switch n := d.Float64() * 100; {
	case n < 60:
		r.method = http.MethodGet
	case n < 70:
		r.method, r.body = http.MethodPut, bodyBytes
	case n < 80:
		r.method, r.body = http.MethodPost, bodyBytes
	case n < 90:
		r.method, r.body = http.MethodPost, bodyKnown
	default:
		r.method, r.body = http.MethodPost, bodyUnknown
	}
	if r.body != bodyNone {
		r.size = 1 + d.Int64N(pick(d, int64(256), 4<<10, 4<<10, 24<<10, 96<<10))
		if d.chance(5) {
			r.wait = d.upTo(3 * time.Millisecond)
		}
		r.expect = d.chance(5)
	}
	if d.chance(15) {
		r.partition = pick(d, "one", "two")
	}
	r.own, r.traced = d.chance(4), d.chance(20)
	if d.chance(10) {
		r.patience, r.deadline = time.Microsecond+d.upTo(30*time.Millisecond), d.chance(50)
	}
	switch n := d.Float64() * 100; {
	case n < 3:
		r.reading = readSlowly
	case n < 8:
		r.reading = readPart
	}
	return r
}

// once reports whether the body cannot be had twice.
func (r *request) once() bool {
	return r.body == bodyUnknown || r.body == bodyKnown && r.size > replayLimit
}

func (r *request) String() string {
	kind := [...]string{"no body", "GetBody", "a stream of known length", "a stream of unknown length"}[r.body]
	return fmt.Sprintf("%s %s, %s (%d bytes), partition %q, own %t, patience %v", r.method, r.host.name, kind, r.size, r.partition, r.own, r.patience)
}

// http returns the request in net/http's form.
func (r *request) http(ctx context.Context, w *world) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, w.URL(r.host.name, "/"), nil)
	if err != nil {
		return nil, err
	}
	content := w.content.asked(r.id, r.size)
	open := func() *upload {
		return w.uploads.new(r.id, w.content.asked(r.id, r.size), r.wait, r.body != bodyBytes)
	}
	if r.body != bodyNone {
		req.Body, req.ContentLength = open(), r.size
	}
	switch r.body {
	case bodyBytes:
		req.GetBody = func() (io.ReadCloser, error) { return open(), nil }
	case bodyUnknown:
		req.ContentLength = -1
	}
	req.Header = http.Header{
		headerID:        {strconv.FormatUint(r.id, 10)},
		headerHost:      {r.host.name},
		headerLength:    {strconv.FormatInt(r.size, 10)},
		headerSum:       {sumText(content.sum())},
		headerPartition: {r.partition},
		"User-Agent":    {""}, // none
	}
	if r.own {
		req.Header.Set(headerOwn, "1")
	}
	if r.expect {
		req.Header.Set("Expect", "100-continue")
	}
	if r.once() {
		req.Header.Set(headerOnce, "1")
	}
	return req, nil
}

// context returns the context of the request, and what ends it.
func (r *request) context(ctx context.Context, w *world) (context.Context, func()) {
	if r.partition != "" {
		ctx = transport.WithPartition(ctx, r.partition)
	}
	if r.own {
		ctx = transport.WithoutCoalescing(ctx)
	}
	if r.traced {
		ctx = transport.WithTrace(ctx, r.trace(w))
	}
	switch {
	case r.patience == 0:
		return ctx, func() {}
	case r.deadline:
		return context.WithTimeout(ctx, r.patience)
	}
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(r.patience, cancel)
	return ctx, func() { timer.Stop(); cancel() }
}

// trace checks what the transport says of its decisions.
func (r *request) trace(w *world) *transport.Trace {
	return &transport.Trace{
		Decided: func(d coalesce.Decision) {
			if d.Host != r.host.name || d.Shared == (d.ConnHost == d.Host) || d.Shared && r.own {
				w.ledger.breach(r.id, "decided: %+v", d)
			}
		},
		Misdirected: func(m transport.Misdirected) {
			w.totals.count(sectionMisdirected, string(m.Outcome))
			if m.Host != r.host.name || m.Status != http.StatusMisdirectedRequest || m.Retried != (m.Outcome == transport.OutcomeRetried) {
				w.ledger.breach(r.id, "misdirected: %+v", m)
			}
			if m.Outcome == transport.OutcomeBody && !r.once() {
				w.ledger.breach(r.id, "a body is gone that can be had again")
			}
		},
	}
}
