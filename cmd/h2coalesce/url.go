package main

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

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

func portOf(u *url.URL) int {
	if n, err := strconv.Atoi(u.Port()); err == nil {
		return n
	}
	if u.Scheme == "http" {
		return 80
	}
	return 443
}
