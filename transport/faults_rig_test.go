package transport_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// A point is how far a request has come when something happens to it.
type point int

const (
	never      point = iota
	handshake        // the server has not said a word
	settings         // the handshake is over, and SETTINGS were not sent
	unread           // the request was sent and not read
	headers          // its HEADERS were read; no window was given for the body
	halfSent         // the body was read as far as the window goes
	answering        // it was read, and the answer's HEADERS were sent
	halfAnswer       // half of the answer's body was sent
	allButEnd        // all of that was sent; the trailer, and END_STREAM, were not
)

func (p point) String() string {
	return []string{"never", "handshake", "settings", "unread", "headers", "halfSent", "answering", "halfAnswer", "allButEnd"}[p]
}

// An end is what happens to a request then, on its connection.
type end struct {
	name   string
	act    func(c *lab.Conn, stream uint32)
	goesOn bool   // the server answers all the same
	beside string // what becomes of a GET on the same connection; empty: it is answered
}

var (
	cut = end{name: "cut", act: func(c *lab.Conn, _ uint32) {
		c.Freeze() // what is in its buffers is not read any more
		c.Cut()
	}, beside: "error"}
	silence = end{name: "silence", act: func(c *lab.Conn, _ uint32) { c.Freeze() }, beside: "again/error"}

	refused       = reset(http2.ErrCodeRefusedStream)
	protocolError = reset(http2.ErrCodeProtocol)
	canceledByIt  = reset(http2.ErrCodeCancel)
	internalError = reset(http2.ErrCodeInternal)

	// The last stream is the one below the request's, or the request's.
	goAwayBelow      = goAway("GOAWAY below", 2, http2.ErrCodeNo)
	goAwayErrorBelow = goAway("GOAWAY INTERNAL_ERROR below", 2, http2.ErrCodeInternal)
	goAwayAt         = goAway("GOAWAY", 0, http2.ErrCodeNo)
	goAwayError      = goAway("GOAWAY INTERNAL_ERROR", 0, http2.ErrCodeInternal)

	goAwayErrorCut = end{name: "GOAWAY INTERNAL_ERROR, cut", act: func(c *lab.Conn, stream uint32) {
		c.GoAway(stream, http2.ErrCodeInternal)
		c.Cut()
	}, beside: "error"}
)

func reset(code http2.ErrCode) end {
	return end{name: code.String(), act: func(c *lab.Conn, stream uint32) { c.Reset(stream, code) }}
}

func goAway(name string, below uint32, code http2.ErrCode) end {
	return end{name: name, goesOn: below == 0, act: func(c *lab.Conn, stream uint32) {
		c.GoAway(max(stream, below)-below, code)
	}}
}

// A kind of request.
type kind struct {
	name   string
	method string
	key    bool // Idempotency-Key is set
	again  bool // there is GetBody
	length int64
}

const (
	upload     = "0123456789abcdef0123456789abcdef"
	uploadSize = int64(len(upload))
)

// kinds are in the order of the tables' columns. A body without GetBody is kept
// if its length is known.
var kinds = []kind{
	{name: "GET", method: http.MethodGet},
	{name: "POST", method: http.MethodPost, again: true, length: uploadSize},
	{name: "POST with key", method: http.MethodPost, key: true, again: true, length: uploadSize},
	{name: "POST kept", method: http.MethodPost, length: uploadSize},
	{name: "POST kept with key", method: http.MethodPost, key: true, length: uploadSize},
	{name: "POST not kept", method: http.MethodPost, length: -1},
}

// pause is how long a server waits before it strikes, so that all is at rest.
const pause = time.Millisecond

// A fault is the script of a server that strikes one request once.
type fault struct {
	kind
	point point
	end   end
	first bool // the request is the first on its connection

	over    chan struct{} // closed when the request has ended: then those beside it are answered
	conns   atomic.Int32  // made with the server
	arrived atomic.Int32  // how many times the request did
	written atomic.Int32  // how many times the client wrote it
	bodies  []*onceBody
}

// onceBody is a request's body that counts how often it is closed.
type onceBody struct {
	io.Reader
	closes atomic.Int32
}

func (b *onceBody) Close() error { b.closes.Add(1); return nil }

func (f *fault) open() (io.ReadCloser, error) {
	b := &onceBody{Reader: strings.NewReader(upload)}
	f.bodies = append(f.bodies, b)
	return b, nil
}

func (f *fault) request(ctx context.Context, r *rig) *http.Request {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { f.written.Add(1) }})
	req := r.request(ctx, f.method, "a.example.com", nil)
	if f.key {
		req.Header.Set("Idempotency-Key", "1")
	}
	if f.method == http.MethodPost {
		req.Body, _ = f.open()
		req.ContentLength = f.length
	}
	if f.again {
		req.GetBody = f.open
	}
	return req
}

func (f *fault) servers() map[string]lab.Server {
	a := lab.Server{Names: []string{"a.example.com"}, Handler: f, OnConn: f.greet}
	switch f.point {
	case handshake:
		a.HandshakeDelay = 2 * pause
	case settings:
		a.SettingsDelay = 2 * pause
	}
	return map[string]lab.Server{"127.0.0.1": a, "127.0.0.2": {Names: []string{"c.example.com"}, Handler: f}}
}

// greet bounds the uploads on the first connection, or strikes it.
func (f *fault) greet(c *lab.Conn) {
	switch {
	case f.conns.Add(1) > 1:
	case f.point == unread && f.first:
		time.Sleep(pause)
		f.end.act(c, 1)
	case f.point == headers:
		c.Settings(window(0))
	case f.point == halfSent:
		c.Settings(window(uploadSize / 2))
	}
}

func window(size int64) http2.Setting {
	return http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(size)}
}

// ServeHTTP answers /warm at once, /beside when the request has ended, and the
// request itself with what is struck the first time.
func (f *fault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/beside":
		select {
		case <-f.over:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	case "/":
		at := f.point
		if f.arrived.Add(1) > 1 {
			at = never
		}
		f.answer(w, r, at)
	}
}

// answer answers with the method and the body, one after the other, and a
// trailer.
func (f *fault) answer(w http.ResponseWriter, r *http.Request, at point) {
	flush := w.(http.Flusher).Flush
	strike := func(p point) {
		if p == at {
			f.strike(r)
		}
	}
	strike(headers)
	strike(halfSent)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Trailer", "X-Sum")
	flush()
	strike(answering)
	io.WriteString(w, r.Method)
	flush()
	strike(halfAnswer)
	w.Write(body)
	flush()
	strike(allButEnd)
	w.Header().Set("X-Sum", fmt.Sprint(len(body)))
}

func (f *fault) strike(r *http.Request) {
	c, q := lab.FromRequest(r)
	time.Sleep(pause)
	f.end.act(c, q.Stream)
	c.Settings(window(1 << 20)) // for what goes on, or comes again, on the same connection
	if !f.end.goesOn {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
}

// want returns the whole answer, and what of it is sent before the fault.
func (f *fault) want() (whole, sent string) {
	whole = f.method
	if f.method == http.MethodPost {
		whole += upload
	}
	return whole, map[point]string{halfAnswer: f.method, allButEnd: whole}[f.point]
}
