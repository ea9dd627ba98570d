package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseHeaders(t *testing.T) {
	for _, test := range []struct {
		lines []string
		want  http.Header
		host  string
	}{
		{nil, http.Header{"User-Agent": {"h2coalesce"}}, ""},
		{[]string{"User-Agent: me"}, http.Header{"User-Agent": {"me"}}, ""},
		{[]string{"user-agent:"}, http.Header{"User-Agent": {""}}, ""},
		{[]string{"User-Agent:", "User-Agent: me"}, http.Header{"User-Agent": {"me"}}, ""},
		{[]string{"User-Agent:", "X-A:1"}, http.Header{"User-Agent": {""}, "X-A": {"1"}}, ""},
		{[]string{"User-Agent: me", "X-A: \t a: b; \t"}, http.Header{"User-Agent": {"me"}, "X-A": {"a: b;"}}, ""},
		{[]string{"User-Agent: me", "x-a: 1", "X-A: 2", "X-A;"}, http.Header{"User-Agent": {"me"}, "X-A": {"1", "2", ""}}, ""},
		{[]string{"User-Agent: me", "X-A: 1", "X-A:"}, http.Header{"User-Agent": {"me"}}, ""},
		{[]string{"User-Agent: me", "host: h.example:8443"}, http.Header{"User-Agent": {"me"}}, "h.example:8443"},
	} {
		got, host, err := parseHeaders(test.lines)
		if diff := cmp.Diff(test.want, got); diff != "" || host != test.host || err != nil {
			t.Errorf("%q: host %q, %v (-want +got):\n%s", test.lines, host, err, diff)
		}
	}
}

func TestParseHeadersRejects(t *testing.T) {
	for _, line := range []string{
		"", ":", ";", "secret", "Bearer secret", "secret words: x", "X A;", "X-A: sec\nret", "X-A: sec\x00ret", "Host:", "Host;",
	} {
		_, _, err := parseHeaders([]string{line})
		if err == nil || strings.Contains(err.Error(), "sec") || strings.Contains(err.Error(), "Bearer") {
			t.Errorf("%q: %v", line, err)
		}
	}
}
