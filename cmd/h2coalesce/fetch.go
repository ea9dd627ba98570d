package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
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

// summary adds the results up.
type summary struct {
	Requests    int `json:"requests"`    // URLs fetched, or tried
	Failed      int `json:"failed"`      // those without a complete answer
	Connections int `json:"connections"` // that carried them
	Handshakes  int `json:"handshakes"`  // of TLS, that succeeded
	Shared      int `json:"shared"`      // requests answered on another host's connection
	Retried     int `json:"retried"`     // 421s after which the request was sent again
}

// reporter is given the results in the order of the URLs, then the summary.
type reporter interface {
	result(*result) error
	summary(*summary) error
}

// fetcher fetches URLs with one client and counts connections.
type fetcher struct {
	config *getConfig
	client *http.Client

	mu         sync.Mutex // guards what follows
	conns      map[net.Conn]struct{}
	handshakes int
}

// fetchAll fetches the URLs, up to config.parallel of them at once, and
// reports them in order. When ctx ends, what is not finished is not reported.
func (c *getConfig) fetchAll(ctx context.Context, out reporter) error {
	tr := c.transport()
	defer tr.Close()
	f := &fetcher{
		config: c,
		client: &http.Client{
			Transport:     tr,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		conns: make(map[net.Conn]struct{}),
	}
	// Also when writing fails, what is under way is to end.
	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()

	queue := make(chan int)
	results := make([]chan result, len(c.urls))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	workers.Go(func() { // ends when all URLs are taken, or with ctx
		defer close(queue)
		for i := range c.urls {
			select {
			case queue <- i:
			case <-ctx.Done():
				return
			}
		}
	})
	for range min(c.parallel, len(c.urls)) {
		workers.Go(func() { // ends with the queue
			for i := range queue {
				results[i] <- f.fetch(ctx, c.urls[i])
			}
		})
	}

	var sum summary
	for _, ch := range results {
		select {
		case r := <-ch:
			if r.err != nil && ctx.Err() != nil {
				return ctx.Err()
			}
			sum.add(&r)
			if err := out.result(&r); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	sum.Connections, sum.Handshakes = f.counts()
	if err := out.summary(&sum); err != nil {
		return err
	}
	if sum.Failed > 0 {
		return errFailed
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

func (f *fetcher) counts() (conns, handshakes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns), f.handshakes
}

// fetch fetches one URL.
func (f *fetcher) fetch(ctx context.Context, u *url.URL) result {
	r := result{url: redacted(u)}
	ctx, cancel := context.WithTimeoutCause(ctx, f.config.timeout, errTimeout)
	defer cancel()
	req := f.config.request(u).WithContext(f.trace(ctx, &r))
	start := time.Now()
	err := f.exchange(req, &r)
	r.elapsed = time.Since(start)
	switch e, ok := errors.AsType[*url.Error](err); {
	case err == nil:
	case context.Cause(ctx) == errTimeout:
		r.err = fmt.Errorf("no complete answer within %v", f.config.timeout)
	case ok:
		r.err = e.Err // without the URL, which the report has already
	default:
		r.err = err
	}
	return r
}

var errTimeout = errors.New("timeout")

func (f *fetcher) exchange(req *http.Request, r *result) error {
	res, err := f.client.Do(req)
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
func (f *fetcher) trace(ctx context.Context, r *result) context.Context {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err == nil {
				f.mu.Lock()
				f.handshakes++
				f.mu.Unlock()
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			f.mu.Lock()
			f.conns[info.Conn] = struct{}{}
			f.mu.Unlock()
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
