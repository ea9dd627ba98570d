package transport

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// validate reports what net/http would not send. Its texts are net/http's.
func validate(req *http.Request) error {
	switch {
	case req.URL == nil:
		return errors.New("http: nil Request.URL")
	case req.Header == nil:
		return errors.New("http: nil Request.Header")
	case req.URL.Scheme != "https":
		return nil // Base sees to it
	}
	if err := validateHeader("header", req.Header); err != nil {
		return err
	}
	if err := validateHeader("trailer", req.Trailer); err != nil {
		return err
	}
	if req.Method != "" && !httpguts.ValidHeaderFieldName(req.Method) { // both are tokens
		return fmt.Errorf("net/http: invalid method %q", req.Method)
	}
	if req.URL.Host == "" {
		return errors.New("http: no Host in request URL")
	}
	return nil
}

func validateHeader(kind string, h http.Header) error {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("net/http: invalid %s field name %q", kind, name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				// The value may be a secret.
				return fmt.Errorf("net/http: invalid %s field value for %q", kind, name)
			}
		}
	}
	return nil
}

// destination returns what the pool is asked for on behalf of req; ok is false
// if the request is Base's. If Base's Proxy was asked, its answer is kept in
// opts: it may be another the next time.
func (c *core) destination(req *http.Request, opts *options) (dest pool.Request, ok bool, err error) {
	if !c.http2 || c.config.DisableKeepAlives || req.URL.Scheme != "https" || closes(req) || upgrades(req) {
		return dest, false, nil
	}
	if c.config.Proxy != nil {
		proxy, err := c.config.Proxy(req)
		if err != nil {
			return dest, false, err
		}
		opts.proxy, opts.proxyAsked = proxy, true
		if proxy != nil {
			return dest, false, nil
		}
	}
	host, port, ok := hostPort(req.URL)
	if !ok {
		return dest, false, nil // net/http has its own way with such hosts, and its own errors
	}
	dest = pool.Request{
		Host:      host,
		Port:      port,
		Partition: opts.partition,
		Own:       opts.own,
		Fronts:    fronts(req, host, port),
		Cancel:    req.Cancel, //lint:ignore SA1019 a drop-in heeds it
		Explain:   opts.trace != nil && opts.trace.Decided != nil,
	}
	return dest, !c.http1.has(dest), nil
}

// hostPort returns the host of an https URL as certificates have it.
func hostPort(u *url.URL) (host string, port int, ok bool) {
	port = 443
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", 0, false
		}
		port = int(n)
	}
	host, err := coalesce.CanonicalHost(u.Hostname())
	return host, port, err == nil
}

// fronts reports whether the request names one host to the network and another
// to the server: domain fronting, which no other host's connection carries
// (C12).
func fronts(req *http.Request, host string, port int) bool {
	if req.Host == "" || req.Host == req.URL.Host {
		return false
	}
	h, p, ok := hostPort(&url.URL{Host: req.Host})
	return !ok || h != host || p != port
}

// closes reports whether the request ends its connection.
func closes(req *http.Request) bool {
	return req.Close || httpguts.HeaderValuesContainsToken(req.Header["Connection"], "close")
}

// upgrades reports whether the request needs HTTP/1.1: HTTP/2 has no Upgrade
// (RFC 9113 §8.6).
func upgrades(req *http.Request) bool {
	return httpguts.HeaderValuesContainsToken(req.Header["Connection"], "upgrade") &&
		strings.EqualFold(req.Header.Get("Upgrade"), "websocket")
}
