package main

import (
	"context"
	"net/url"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/transport"
)

// explanation is what would carry a URL.
type explanation struct {
	url      string // without credentials
	decision coalesce.Decision
	err      error // then there is no decision
}

// explain explains the URLs one after the other. It opens no connection.
func (s *session) explain(ctx context.Context, urls []*url.URL) error {
	for _, u := range urls {
		e := s.explainOne(ctx, u)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e.err != nil {
			s.sum.Failed++
		}
		if err := s.out.explanation(&e); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) explainOne(ctx context.Context, u *url.URL) explanation {
	e := explanation{url: redacted(u)}
	ctx, cancel := s.config.limited(ctx)
	defer cancel()
	asked := ctx
	if s.config.fronts(u) {
		asked = transport.WithoutCoalescing(ctx)
	}
	bare := *u
	bare.User = nil // nothing depends on them, and no error is to show them
	d, err := s.transport.Explain(asked, bare.String())
	e.decision, e.err = d, s.config.failure(ctx, err, "explanation")
	return e
}

// fronts reports whether the Host header names another host than u does. Explain
// is not told of headers, but a request with such a one goes on its own host's
// connections only.
func (c *config) fronts(u *url.URL) bool {
	if c.host == "" {
		return false
	}
	named := &url.URL{Scheme: u.Scheme, Host: c.host}
	a, err := coalesce.CanonicalHost(named.Hostname())
	if err != nil {
		return true
	}
	b, err := coalesce.CanonicalHost(u.Hostname())
	return err != nil || a != b || portOf(named) != portOf(u)
}
