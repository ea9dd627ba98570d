package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/transport"
)

const userAgent = "h2coalesce"

// getConfig is a command line of get, understood.
type getConfig struct {
	urls     []*url.URL
	match    coalesce.Match
	resolver *overrides
	roots    *x509.CertPool // nil: the system's
	header   http.Header
	host     string // of the Host header; empty: the URL's
	json     bool
	parallel int
	timeout  time.Duration
}

// wrong is a mistake in a command line of get.
func wrong(format string, args ...any) error {
	return &usageError{getUsageLine, "get: " + fmt.Sprintf(format, args...)}
}

func runGet(ctx context.Context, args []string, stdout io.Writer) error {
	c, err := parseGet(args)
	if errors.Is(err, flag.ErrHelp) {
		return runHelp([]string{"get"}, stdout)
	}
	if err != nil {
		return err
	}
	var out reporter = newTextReporter(stdout, c.urls)
	if c.json {
		out = newJSONReporter(stdout)
	}
	return c.fetchAll(ctx, out)
}

func parseGet(args []string) (*getConfig, error) {
	c := &getConfig{}
	var match, cacert string
	var resolve, headers []string
	fs := flag.NewFlagSet("get", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // run prints the error
	fs.StringVar(&match, "match", coalesce.MatchAddress.String(), "")
	fs.StringVar(&cacert, "cacert", "", "")
	fs.BoolVar(&c.json, "json", false, "")
	fs.IntVar(&c.parallel, "parallel", 1, "")
	fs.DurationVar(&c.timeout, "timeout", 30*time.Second, "")
	// Values are understood later: package flag repeats one that it rejects,
	// and a header may be a secret.
	fs.Func("resolve", "", func(s string) error { resolve = append(resolve, s); return nil })
	fs.Func("H", "", func(s string) error { headers = append(headers, s); return nil })
	rawURLs, err := parseInterspersed(fs, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil, err
	case err != nil:
		return nil, wrong("%v", err)
	case c.parallel < 1:
		return nil, wrong("-parallel %d: want 1 or more", c.parallel)
	case c.timeout <= 0:
		return nil, wrong("-timeout %v: want more than 0", c.timeout)
	case len(rawURLs) == 0:
		return nil, wrong("no URL")
	}
	if c.match, err = coalesce.ParseMatch(match); err != nil {
		return nil, wrong("-match: %s", strings.TrimPrefix(err.Error(), "coalesce: "))
	}
	if c.header, c.host, err = parseHeaders(headers); err != nil {
		return nil, wrong("-H %v", err)
	}
	if cacert != "" {
		if c.roots, err = readRoots(cacert); err != nil {
			return nil, wrong("-cacert: %v", err)
		}
	}
	for i, raw := range rawURLs {
		u, err := parseURL(raw)
		if err != nil {
			return nil, wrong("URL %d: %v", i+1, err)
		}
		c.urls = append(c.urls, u)
	}
	if c.resolver, err = parseResolve(resolve); err != nil {
		return nil, wrong("-resolve %v", err)
	}
	if err := c.resolver.check(c.urls); err != nil {
		return nil, wrong("-resolve %v", err)
	}
	return c, nil
}

// parseInterspersed is fs.Parse for flags that may also follow arguments, as
// people write them. It returns the arguments.
func parseInterspersed(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		left := fs.Args()
		if parsed := len(args) - len(left); parsed > 0 && args[parsed-1] == "--" {
			return append(rest, left...), nil
		}
		if len(left) == 0 {
			return rest, nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

// parseURL does not repeat credentials in its errors, nor what may be some: of
// a URL that is not understood, nobody knows where they are.
func parseURL(raw string) (*url.URL, error) {
	shown := fmt.Sprintf("%q", raw)
	if strings.Contains(raw, "@") {
		shown = "(not shown, since it may hold credentials)"
	}
	u, err := url.Parse(raw)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		if strings.Contains(raw, "@") {
			err = errors.New("malformed")
		}
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	if u.User != nil {
		shown = fmt.Sprintf("%q", redacted(u))
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%s: want https://host/path, or http", shown)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("%s: no host", shown)
	}
	return u, nil
}

// redacted is u without credentials. URL.Redacted leaves the user's name, but
// it is often a token.
func redacted(u *url.URL) string {
	if u.User != nil {
		shown := *u
		shown.User = url.User("xxxxx")
		u = &shown
	}
	return u.String()
}

func readRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in PEM", file)
	}
	return roots, nil
}

// transport returns the one Transport for all URLs.
func (c *getConfig) transport() *transport.Transport {
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

// request returns a request for u, apart from its context.
func (c *getConfig) request(u *url.URL) *http.Request {
	req := &http.Request{Method: http.MethodGet, URL: u, Header: c.header.Clone(), Host: u.Host}
	if c.host != "" {
		req.Host = c.host
	}
	return req
}
