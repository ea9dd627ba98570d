package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/transport"
)

// session carries out the parts of a command line with one Transport.
type session struct {
	config    *config
	transport *transport.Transport
	client    *http.Client
	out       reporter
	sum       summary

	mu         sync.Mutex // guards what follows
	conns      map[net.Conn]struct{}
	handshakes int
}

// summary adds the results up.
type summary struct {
	Requests    int `json:"requests"`    // URLs fetched, or tried
	Failed      int `json:"failed"`      // URLs without a complete answer, or an explanation
	Connections int `json:"connections"` // that carried them
	Handshakes  int `json:"handshakes"`  // of TLS, that succeeded
	Shared      int `json:"shared"`      // requests answered on another host's connection
	Retried     int `json:"retried"`     // 421s after which the request was sent again
}

// reporter is given the results and the explanations in the order of the URLs,
// then the summary.
type reporter interface {
	result(*result) error
	explanation(*explanation) error
	summary(*summary) error
}

// runURLs runs get or explain.
func runURLs(ctx context.Context, command string, args []string, stdout io.Writer) error {
	c, err := parseArgs(command, args)
	if errors.Is(err, flag.ErrHelp) {
		return runHelp([]string{command}, stdout)
	}
	if err != nil {
		usage, _ := manual(command)
		return &usageError{usage, fmt.Sprintf("%s: %v", command, err)}
	}
	var out reporter = newTextReporter(stdout, c.urls())
	if c.json {
		out = newJSONReporter(stdout)
	}
	return c.run(ctx, out)
}

// run carries out the parts, each when the one before it has ended, and reports
// the summary unless it would be empty. When ctx ends, what is not finished is
// not reported.
func (c *config) run(ctx context.Context, out reporter) error {
	tr := c.transport()
	defer tr.Close()
	s := &session{
		config:    c,
		transport: tr,
		client: &http.Client{
			Transport:     tr,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		out:   out,
		conns: make(map[net.Conn]struct{}),
	}
	for _, p := range c.parts {
		do := s.get
		if p.command == commandExplain {
			do = s.explain
		}
		if err := do(ctx, p.urls); err != nil {
			return err
		}
	}
	if s.sum == (summary{}) {
		return nil
	}
	s.sum.Connections, s.sum.Handshakes = s.counts()
	if err := out.summary(&s.sum); err != nil {
		return err
	}
	if s.sum.Failed > 0 {
		return errFailed
	}
	return nil
}

func (s *session) counts() (conns, handshakes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.handshakes
}

// transport returns the one Transport for all URLs.
func (c *config) transport() *transport.Transport {
	base, ok := http.DefaultTransport.(*http.Transport)
	if ok {
		base = base.Clone()
	} else {
		base = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	base.DisableCompression = true // what is counted is what was sent
	if c.roots != nil {
		if base.TLSClientConfig == nil {
			base.TLSClientConfig = new(tls.Config)
		}
		base.TLSClientConfig.RootCAs = c.roots
	}
	return &transport.Transport{
		Base:     base,
		Policy:   coalesce.Policy{Match: c.match},
		Resolver: c.resolver,
	}
}

var errTimeout = errors.New("timeout")

// limited returns ctx with the time for one URL.
func (c *config) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.timeout, errTimeout)
}

// failure is err, of what was done under a limited ctx, as a report has it:
// without the URL, which is there already. Missing is what ctx was too short
// for.
func (c *config) failure(ctx context.Context, err error, missing string) error {
	switch e, ok := errors.AsType[*url.Error](err); {
	case err == nil:
		return nil
	case context.Cause(ctx) == errTimeout:
		return fmt.Errorf("no %s within %v", missing, c.timeout)
	case ok:
		return e.Err
	}
	return err
}
