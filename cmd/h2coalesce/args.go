package main

import (
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
)

// The commands that take URLs. Among the URLs they are words that say what the
// URLs behind them are for.
const (
	commandGet     = "get"
	commandExplain = "explain"
)

// config is a command line of get or explain, understood.
type config struct {
	parts    []part // one or more
	match    coalesce.Match
	resolver *overrides
	roots    *x509.CertPool // nil: the system's
	header   http.Header
	host     string // of the Host header; empty: the URL's
	json     bool
	parallel int
	timeout  time.Duration
}

// part is a command and its URLs, of which there are some.
type part struct {
	command string
	urls    []*url.URL
}

// urls returns those of all parts.
func (c *config) urls() []*url.URL {
	var all []*url.URL
	for _, p := range c.parts {
		all = append(all, p.urls...)
	}
	return all
}

// parseArgs reads what follows the command. Its error is flag.ErrHelp if help
// is asked for.
func parseArgs(command string, args []string) (*config, error) {
	c := &config{}
	var match, cacert string
	var resolve, headers []string
	fs := flag.NewFlagSet(command, flag.ContinueOnError)
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
	rest, err := parseInterspersed(fs, args)
	switch {
	case err != nil:
		return nil, err
	case c.parallel < 1:
		return nil, fmt.Errorf("-parallel %d: want 1 or more", c.parallel)
	case c.timeout <= 0:
		return nil, fmt.Errorf("-timeout %v: want more than 0", c.timeout)
	}
	if c.match, err = coalesce.ParseMatch(match); err != nil {
		return nil, fmt.Errorf("-match: %s", strings.TrimPrefix(err.Error(), "coalesce: "))
	}
	if c.header, c.host, err = parseHeaders(headers); err != nil {
		return nil, fmt.Errorf("-H %w", err)
	}
	if cacert != "" {
		if c.roots, err = readRoots(cacert); err != nil {
			return nil, fmt.Errorf("-cacert: %w", err)
		}
	}
	if c.parts, err = parseParts(command, rest); err != nil {
		return nil, err
	}
	if c.resolver, err = parseResolve(resolve); err != nil {
		return nil, fmt.Errorf("-resolve %w", err)
	}
	if err := c.resolver.check(c.urls()); err != nil {
		return nil, fmt.Errorf("-resolve %w", err)
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

// parseParts divides the arguments of a command at the words. Those behind
// "--", which ends only the flags, are divided as well: no URL is such a word.
func parseParts(command string, args []string) ([]part, error) {
	parts := []part{{command: command}}
	n := 0
	for _, arg := range args {
		if arg == commandGet || arg == commandExplain {
			parts = append(parts, part{command: arg})
			continue
		}
		n++
		u, err := parseURL(arg)
		if err != nil {
			return nil, fmt.Errorf("URL %d: %w", n, err)
		}
		last := &parts[len(parts)-1]
		last.urls = append(last.urls, u)
	}
	if n == 0 {
		return nil, errors.New("no URL")
	}
	for _, p := range parts {
		if len(p.urls) == 0 {
			return nil, fmt.Errorf("no URL behind the word %q", p.command)
		}
	}
	return parts, nil
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
