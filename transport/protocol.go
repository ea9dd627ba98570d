package transport

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/h2coalesce/h2coalesce/internal/dial"
	"github.com/h2coalesce/h2coalesce/pool"
)

// protocols reports whether t permits HTTP/2, and the ALPN protocols to offer.
// t is a clone, in which a TLSNextProto that net/http has filled in by itself
// is nil again.
func protocols(t *http.Transport) (http2 bool, alpn []string) {
	http1 := true
	switch {
	case t.Protocols != nil:
		http1, http2 = t.Protocols.HTTP1(), t.Protocols.HTTP2()
	case t.TLSNextProto != nil:
		http2 = t.TLSNextProto["h2"] != nil
	default:
		http2 = true
	}
	if http2 {
		alpn = append(alpn, "h2")
	}
	if t.TLSClientConfig != nil {
		for _, p := range t.TLSClientConfig.NextProtos {
			if p != "h2" && p != "http/1.1" {
				alpn = append(alpn, p)
			}
		}
	}
	if http1 {
		alpn = append(alpn, "http/1.1")
	}
	return http2, alpn
}

const (
	protocolsKept = 1024
	protocolTTL   = 10 * time.Minute
)

// protocolMemory remembers the hosts that did not choose HTTP/2, so that their
// requests go to net/http at once (P9).
type protocolMemory struct {
	mu  sync.Mutex // guards the fields that follow
	lru *simplelru.LRU[protocolKey, time.Time]
	// turned has the connections on which hosts have said that they speak HTTP/2
	// now, while a request is under way to put them to use.
	turned map[protocolKey]*dial.Spare
}

type protocolKey struct {
	partition, host string
	port            int
}

func (m *protocolMemory) has(r pool.Request) bool {
	return m.knows(protocolKey{r.Partition, r.Host, r.Port})
}

// learn notes that key's host did not choose HTTP/2 just now.
func (m *protocolMemory) learn(key protocolKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lru == nil {
		m.lru, _ = simplelru.NewLRU[protocolKey, time.Time](protocolsKept, nil)
	}
	// The host may be a part of a URL, which is not to live on in here.
	key.partition, key.host = strings.Clone(key.partition), strings.Clone(key.host)
	m.lru.Add(key, time.Now().Add(protocolTTL))
}

func (m *protocolMemory) knows(key protocolKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lru == nil {
		return false
	}
	until, ok := m.lru.Get(key)
	return ok && time.Now().Before(until)
}

func (m *protocolMemory) forget(key protocolKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetLocked(key)
}

func (m *protocolMemory) forgetLocked(key protocolKey) {
	if m.lru != nil {
		m.lru.Remove(key)
	}
}

// turn forgets key, whose host has turned to HTTP/2 with s.
func (m *protocolMemory) turn(key protocolKey, s *dial.Spare) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetLocked(key)
	if m.turned == nil {
		m.turned = make(map[protocolKey]*dial.Spare)
	}
	m.turned[key] = s
}

// spare returns what turn was called with last; an empty one if that is done.
func (m *protocolMemory) spare(key protocolKey) *dial.Spare {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.turned[key]; s != nil {
		return s
	}
	return new(dial.Spare)
}

// done says that s is of no more use.
func (m *protocolMemory) done(key protocolKey, s *dial.Spare) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.turned[key] == s {
		delete(m.turned, key)
	}
}

// turned sends a request that net/http was to send, and has not, to a host that
// has turned to HTTP/2. spare has the connection on which it said so, if any.
func (c *core) turned(req *http.Request, spare *dial.Spare, before *exchange) (*http.Response, error) {
	ctx := dial.WithSpare(context.WithValue(req.Context(), turnedKey{}, true), spare)
	ctx = dial.Retrace(ctx, func(t *httptrace.ClientTrace) { t.GetConn = butFirst(t.GetConn) })
	again := req.WithContext(ctx)
	if hasBody(req) && req.GetBody != nil {
		var err error
		if again.Body, err = req.GetBody(); err != nil { // net/http has closed the one before
			return nil, err
		}
	}
	res, err := c.roundTripAfter(again, before)
	if err != nil {
		return nil, err
	}
	res.Request = req
	return res, nil
}

// turnedKey is the context key of a request that has been to turned. That is
// done once: servers behind one address may differ.
type turnedKey struct{}

// errTurned tells net/http that there is no connection for it, and viaBase why.
var errTurned = errors.New("h2coalesce: the host has turned to HTTP/2")

// turn has d's request sent by the pool, which is to use s, the connection on which
// d's host has said that it speaks HTTP/2.
func (c *core) turn(d *directive, s *dial.Spare) {
	c.http1.turn(d.host, s)
	if !d.turn(s, true) {
		c.http1.done(d.host, s)
		s.Close()
	}
}

// turn has the request sent by the pool, which is to use s if it can. The first
// call counts: net/http may dial more than once, and in vain.
func (d *directive) turn(s *dial.Spare, owned bool) (done bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended || d.spare != nil {
		return false
	}
	d.spare, d.owned = s, owned
	return true
}

func (d *directive) turnedBy() *dial.Spare {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.spare
}

// end says that d's request has been answered or has failed, and closes what it
// has had no use for.
func (c *core) end(d *directive) {
	d.mu.Lock()
	d.ended = true
	s, owned := d.spare, d.owned
	d.mu.Unlock()
	if owned {
		c.http1.done(d.host, s)
		s.Close()
	}
}

// heldBody is a body that cannot be had twice. net/http closes it when it has
// no connection for the request, which may yet be sent otherwise.
type heldBody struct {
	io.ReadCloser
	directive *directive
	closed    bool // though not passed on; guarded by directive.mu
	released  bool // guarded by directive.mu
}

func (b *heldBody) Close() error {
	d := b.directive
	d.mu.Lock()
	held := d.spare != nil && !b.released
	b.closed = b.closed || held
	d.mu.Unlock()
	if held {
		return nil
	}
	return b.ReadCloser.Close()
}

// release passes on the Close that was held, and those to come.
func (b *heldBody) release() {
	d := b.directive
	d.mu.Lock()
	b.released = true
	closed := b.closed
	d.mu.Unlock()
	if closed {
		b.ReadCloser.Close()
	}
}
