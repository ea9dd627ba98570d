package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/transport"
)

// result is what a URL came to.
type result struct {
	url     string // without credentials
	status  int    // 0: no answer
	proto   string
	remote  string // address of the connection that carried the request last
	bytes   int64  // of the body
	elapsed time.Duration
	steps   []step // empty if the request was net/http's
	err     error
}

// step is a decision, or a 421 if misdirected is set.
type step struct {
	decision    coalesce.Decision
	remote      string
	misdirected *transport.Misdirected
}

// last returns the decision that the answer came by; nil if there is none.
func (r *result) last() *coalesce.Decision {
	for i := len(r.steps) - 1; i >= 0; i-- {
		if r.steps[i].misdirected == nil {
			return &r.steps[i].decision
		}
	}
	return nil
}

// retried counts the 421s after which the request was sent again.
func (r *result) retried() int {
	n := 0
	for _, s := range r.steps {
		if s.misdirected != nil && s.misdirected.Retried {
			n++
		}
	}
	return n
}

// get fetches the URLs, up to config.parallel of them at once, and reports them
// in order.
func (s *session) get(ctx context.Context, urls []*url.URL) error {
	// Also when writing fails, what is under way is to end.
	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()

	queue := make(chan int)
	results := make([]chan result, len(urls))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	workers.Go(func() { // ends when all URLs are taken, or with ctx
		defer close(queue)
		for i := range urls {
			select {
			case queue <- i:
			case <-ctx.Done():
				return
			}
		}
	})
	for range min(s.config.parallel, len(urls)) {
		workers.Go(func() { // ends with the queue
			for i := range queue {
				results[i] <- s.fetch(ctx, urls[i])
			}
		})
	}

	for _, ch := range results {
		select {
		case r := <-ch:
			if r.err != nil && ctx.Err() != nil {
				return ctx.Err()
			}
			s.sum.add(&r)
			if err := s.out.result(&r); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *summary) add(r *result) {
	s.Requests++
	if r.err != nil {
		s.Failed++
	} else if d := r.last(); d != nil && d.Shared {
		s.Shared++
	}
	s.Retried += r.retried()
}

// fetch fetches one URL.
func (s *session) fetch(ctx context.Context, u *url.URL) result {
	r := result{url: redacted(u)}
	ctx, cancel := s.config.limited(ctx)
	defer cancel()
	req := s.config.request(u).WithContext(s.trace(ctx, &r))
	start := time.Now()
	err := s.exchange(req, &r)
	r.elapsed = time.Since(start)
	r.err = s.config.failure(ctx, err, "complete answer")
	return r
}

// request returns a request for u, apart from its context.
func (c *config) request(u *url.URL) *http.Request {
	req := &http.Request{Method: http.MethodGet, URL: u, Header: c.header.Clone(), Host: u.Host}
	if c.host != "" {
		req.Host = c.host
	}
	return req
}

func (s *session) exchange(req *http.Request, r *result) error {
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	r.status, r.proto = res.StatusCode, res.Proto
	if r.bytes, err = io.Copy(io.Discard, res.Body); err != nil {
		return fmt.Errorf("after %s of the body: %w", counted(r.bytes, "byte"), err)
	}
	return nil
}

// trace returns a context whose request tells r how it goes. All but the
// handshake is told by the goroutine that fetches.
func (s *session) trace(ctx context.Context, r *result) context.Context {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err == nil {
				s.mu.Lock()
				s.handshakes++
				s.mu.Unlock()
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			s.mu.Lock()
			s.conns[info.Conn] = struct{}{}
			s.mu.Unlock()
			r.remote = info.Conn.RemoteAddr().String()
		},
	})
	return transport.WithTrace(ctx, &transport.Trace{
		Decided: func(d coalesce.Decision) {
			r.steps = append(r.steps, step{decision: d, remote: r.remote})
		},
		Misdirected: func(m transport.Misdirected) {
			r.steps = append(r.steps, step{misdirected: &m, remote: m.RemoteAddr.String()})
		},
	})
}
