package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// fleet serves a, b and c.example.com with one certificate and misdirects c.
// d.example.com is elsewhere, with a certificate of the same names.
func fleet(t *testing.T) *lab.Lab {
	names := []string{"*.example.com"}
	l := newLab(t, map[string]lab.Server{
		"127.0.0.1": {
			Names:       names,
			Misdirected: func(r *lab.Request) bool { return r.Host() == "c.example.com" && r.SNI != r.Host() },
		},
		"127.0.0.2": {Names: names},
	})
	if l.Port() < 10000 {
		t.Fatal("the columns and the bodies that are expected are for a port of five digits")
	}
	return l
}

// fleetArgs begins a command line for the fleet.
func fleetArgs(t *testing.T, l *lab.Lab, command string, args ...string) []string {
	port := strconv.Itoa(l.Port())
	return append([]string{command, "-cacert", caFile(t, l),
		"-resolve", "*:" + port + ":127.0.0.1", "-resolve", "+d.example.com:" + port + ":127.0.0.2"}, args...)
}

var times = regexp.MustCompile(` +[0-9.]+ m?s\n`)

// normal is output without what differs from run to run.
func normal(l *lab.Lab, out string) string {
	out = strings.ReplaceAll(out, ":"+strconv.Itoa(l.Port()), ":8443")
	return times.ReplaceAllString(out, "  TIME\n")
}

func TestGetTellsWhatCarriesEachRequest(t *testing.T) {
	l := fleet(t)
	var urls []string
	for _, host := range []string{"a", "b", "c", "c", "d", "a"} {
		urls = append(urls, l.URL(host+".example.com", "/"))
	}
	stdout, stderr, code := command(t, fleetArgs(t, l, "get", urls...)...)
	want := `
200   https://a.example.com:8443/       32 B  TIME
      dialed    conn 1                  HTTP/2.0  127.0.0.1:8443
200   https://b.example.com:8443/       32 B  TIME
      shared    conn 1 (a.example.com)  HTTP/2.0  127.0.0.1:8443
200   https://c.example.com:8443/       32 B  TIME
      shared    conn 1 (a.example.com)  HTTP/2.0  127.0.0.1:8443
      421       conn 1 (a.example.com)  retried
      dialed    conn 2                  HTTP/2.0  127.0.0.1:8443
200   https://c.example.com:8443/       32 B  TIME
      own       conn 2                  HTTP/2.0  127.0.0.1:8443
200   https://d.example.com:8443/       32 B  TIME
      dialed    conn 3                  HTTP/2.0  127.0.0.2:8443
      not       conn 1 (a.example.com), conn 2 (c.example.com): address-mismatch
200   https://a.example.com:8443/       32 B  TIME
      own       conn 1                  HTTP/2.0  127.0.0.1:8443

6 requests, 3 connections, 3 handshakes, 1 shared, 1 retried, 0 failed
`
	if diff := cmp.Diff(want, "\n"+normal(l, stdout)); diff != "" || stderr != "" || code != 0 {
		t.Errorf("exit %d, %q (-want +got):\n%s", code, stderr, diff)
	}
	if n := l.Record().Handshakes(); n != 3 {
		t.Errorf("the server counts %d handshakes", n)
	}
}

func TestGetJSON(t *testing.T) {
	l := fleet(t)
	args := fleetArgs(t, l, "get", "-json", l.URL("a.example.com", "/?x=1&y=2"), l.URL("c.example.com", "/"), "https://d.example.com:1/")
	args = append(args, "-resolve", "d.example.com:1:127.0.0.2")
	stdout, _, code := command(t, args...)
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	dec := json.NewDecoder(strings.NewReader(normal(l, stdout)))
	dec.DisallowUnknownFields()
	var got []jsonResult
	for range 3 {
		var r jsonResult
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if r.MS <= 0 {
			t.Error("no time")
		}
		r.MS = 0
		got = append(got, r)
	}
	if !strings.Contains(got[2].Error, "refused") {
		t.Error(got[2].Error)
	}
	got[2].Error = ""
	got[1].Considered = nil // of a retry
	const addr = "127.0.0.1:8443"
	want := []jsonResult{
		{URL: "https://a.example.com:8443/?x=1&y=2", Status: 200, Proto: "HTTP/2.0", Remote: addr, Bytes: 32,
			jsonRoute: jsonRoute{Conn: 1, ConnHost: "a.example.com", Reason: "dialed"}},
		{URL: "https://c.example.com:8443/", Status: 200, Proto: "HTTP/2.0", Remote: addr, Bytes: 32,
			jsonRoute: jsonRoute{Conn: 2, ConnHost: "c.example.com", Reason: "dialed"},
			Retried:   1, Misdirected: []jsonMisdirected{{421, 1, "a.example.com", addr, "retried"}}},
		{URL: "https://d.example.com:1/"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(jsonResult{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var last struct{ Summary summary }
	if err := dec.Decode(&last); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(summary{Requests: 3, Failed: 1, Connections: 2, Handshakes: 2, Retried: 1}, last.Summary); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := dec.Decode(&last); err != io.EOF {
		t.Errorf("more output: %v", err)
	}
}

func TestGetMatchNever(t *testing.T) {
	l := fleet(t)
	stdout, _, code := command(t, fleetArgs(t, l, "get", "-match", "never", l.URL("a.example.com", "/"), l.URL("b.example.com", "/"))...)
	if code != 0 || !strings.Contains(stdout, "not       conn 1 (a.example.com): disabled\n") || !strings.Contains(stdout, "2 handshakes, 0 shared") {
		t.Errorf("exit %d:\n%s", code, stdout)
	}
}

func TestGetKeepsOrderInParallel(t *testing.T) {
	const n = 4
	var mu sync.Mutex
	arrived := 0
	all := make(chan struct{})
	var others sync.WaitGroup
	others.Add(n - 1)
	l := newLab(t, map[string]lab.Server{"127.0.0.1": {
		Names: []string{"*.example.com"},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			if arrived++; arrived == n {
				close(all)
			}
			mu.Unlock()
			<-all // nobody is answered before all are here
			if r.Host[0] == '1' {
				others.Wait() // the first is answered last
			} else {
				others.Done()
			}
		}),
	}})
	args := []string{"get", "-json", "-cacert", caFile(t, l), "-resolve", fmt.Sprintf("*:%d:127.0.0.1", l.Port()), "-parallel", strconv.Itoa(n)}
	for i := range n {
		args = append(args, l.URL(fmt.Sprintf("%d.example.com", i+1), "/"))
	}
	stdout, _, code := command(t, args...)
	dec := json.NewDecoder(strings.NewReader(stdout))
	for i := range n {
		var r jsonResult
		if err := dec.Decode(&r); err != nil || !strings.HasPrefix(r.URL, fmt.Sprintf("https://%d.", i+1)) {
			t.Errorf("line %d is for %s, %v", i+1, r.URL, err)
		}
	}
	if code != 0 || l.Record().Handshakes() != 1 {
		t.Errorf("exit %d, %d handshakes", code, l.Record().Handshakes())
	}
}

func TestGetPrintsRedirectsAndErrorStatuses(t *testing.T) {
	l := newLab(t, map[string]lab.Server{"127.0.0.1": {
		Names: []string{"127.0.0.1"},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/moved" {
				http.Redirect(w, r, "/", http.StatusFound)
				return
			}
			http.Error(w, "no", http.StatusServiceUnavailable)
		}),
	}})
	stdout, _, code := command(t, "get", "-cacert", caFile(t, l), l.URL("127.0.0.1", "/moved"), l.URL("127.0.0.1", "/"))
	if code != 0 || !strings.Contains(stdout, "\n503 ") || !strings.HasPrefix(stdout, "302 ") || l.Record().Accepted() != 1 {
		t.Errorf("exit %d:\n%s", code, stdout)
	}
}

func TestGetHTTP1(t *testing.T) {
	l := newLab(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"127.0.0.1"}, Protos: []string{"http/1.1"}}})
	u := l.URL("127.0.0.1", "/")
	stdout, _, code := command(t, "get", "-cacert", caFile(t, l), u, u)
	if code != 0 || strings.Count(stdout, "disabled  net/http") != 2 || !strings.Contains(stdout, "HTTP/1.1  127.0.0.1:") ||
		!strings.Contains(stdout, "2 requests, 1 connection, 1 handshake,") {
		t.Errorf("exit %d:\n%s", code, stdout)
	}
}

func TestGetSendsHeadersAndCredentials(t *testing.T) {
	l := newLab(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"a.example.com"}}})
	u := strings.Replace(l.URL("a.example.com", "/"), "://", "://user:secret@", 1)
	stdout, stderr, code := command(t, "get", "-cacert", caFile(t, l), "-resolve", fmt.Sprintf("a.example.com:%d:127.0.0.1", l.Port()),
		"-H", "X-One: 1", "-H", "x-one: 2", "-H", "X-Empty;", "-H", "User-Agent:", "-H", "Host: inner.example", u)
	if code != 0 || strings.Contains(stdout+stderr, "secret") || strings.Contains(stdout, "user") {
		t.Errorf("exit %d:\n%s%s", code, stdout, stderr)
	}
	q := l.Record().Requests()[0]
	want := http.Header{"X-One": {"1", "2"}, "X-Empty": {""}, "Authorization": {"Basic dXNlcjpzZWNyZXQ="}}
	if diff := cmp.Diff(want, q.Header); diff != "" || q.Authority != "inner.example" {
		t.Errorf("authority %s, header (-want +got):\n%s", q.Authority, diff)
	}
}

func TestGetFailures(t *testing.T) {
	l := newLab(t, map[string]lab.Server{"127.0.0.1": {
		Names: []string{"a.example.com"},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			if r.URL.Path == "/slow" {
				<-r.Context().Done()
			}
			panic(http.ErrAbortHandler)
		}),
	}})
	resolve := fmt.Sprintf("*:%d:127.0.0.1", l.Port())
	for _, test := range []struct{ url, want string }{
		{l.URL("a.example.com", "/"), "error     after 4 bytes of the body: "},
		{l.URL("a.example.com", "/slow"), "error     no complete answer within 500ms"},
		{l.URL("b.example.com", "/"), "error     tls: failed to verify certificate"},
	} {
		stdout, stderr, code := command(t, "get", "-cacert", caFile(t, l), "-resolve", resolve, "-timeout", "500ms", test.url, l.URL("127.0.0.1", "/"))
		if code != 1 || stderr != "" || !strings.Contains(stdout, test.want) || !strings.HasPrefix(stdout, "fail  ") || !strings.Contains(stdout, "2 failed") {
			t.Errorf("exit %d, %q:\n%s", code, stderr, stdout)
		}
	}
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := newLab(t, map[string]lab.Server{"127.0.0.1": {
		Names: []string{"127.0.0.1"},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hang" {
				cancel()
				<-r.Context().Done()
			}
		}),
	}})
	var out, errs bytes.Buffer
	code := run(ctx, []string{"get", "-cacert", caFile(t, l), l.URL("127.0.0.1", "/"), l.URL("127.0.0.1", "/hang"), l.URL("127.0.0.1", "/never")}, &out, &errs)
	if code != 130 || errs.String() != "h2coalesce: interrupted\n" || strings.Count(out.String(), "https://") != 1 {
		t.Errorf("exit %d, %q:\n%s", code, errs.String(), out.String())
	}
	if n := len(l.Record().Requests()); n != 2 {
		t.Errorf("%d requests", n)
	}
	if code := run(ctx, nil, &out, &errs); code != 130 {
		t.Errorf("demo: exit %d", code)
	}
}
