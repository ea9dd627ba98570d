package main

import (
	"bytes"
	"context"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// line makes arguments of words: "get" and "explain" stay, and a letter stands
// for a host of the fleet.
func line(l *lab.Lab, words string) []string {
	var args []string
	for word := range strings.FieldsSeq(words) {
		if len(word) == 1 && word >= "a" {
			word = l.URL(word+".example.com", "/")
		}
		args = append(args, word)
	}
	return args
}

// unknownURL has a host that no name server needs to be asked about: a label has
// 63 bytes at most.
var unknownURL = "https://" + strings.Repeat("x", 64) + ".example/"

func TestExplainBetweenFetches(t *testing.T) {
	l := fleet(t)
	args := fleetArgs(t, l, "get", line(l, "a d explain a b c d get c explain c b")...)
	stdout, stderr, code := command(t, append(args, l.URL("a.example.org", "/"))...)
	want := `
200   https://a.example.com:8443/       32 B  TIME
      dialed    conn 1                  HTTP/2.0  127.0.0.1:8443
200   https://d.example.com:8443/       32 B  TIME
      dialed    conn 2                  HTTP/2.0  127.0.0.2:8443
      not       conn 1 (a.example.com): address-mismatch
----  https://a.example.com:8443/  explained
      own       conn 1
      not       conn 2 (d.example.com): address-mismatch
----  https://b.example.com:8443/  explained
      shared    conn 1 (a.example.com)
      not       conn 2 (d.example.com): address-mismatch
----  https://c.example.com:8443/  explained
      shared    conn 1 (a.example.com)
      not       conn 2 (d.example.com): address-mismatch
----  https://d.example.com:8443/  explained
      own       conn 2
      not       conn 1 (a.example.com): address-mismatch
200   https://c.example.com:8443/       32 B  TIME
      shared    conn 1 (a.example.com)  HTTP/2.0  127.0.0.1:8443
      421       conn 1 (a.example.com)  retried
      dialed    conn 3                  HTTP/2.0  127.0.0.1:8443
----  https://c.example.com:8443/  explained
      own       conn 3
      not       conn 1 (a.example.com): misdirected
      not       conn 2 (d.example.com): address-mismatch
----  https://b.example.com:8443/  explained
      shared    conn 1 (a.example.com)
      not       conn 2 (d.example.com): address-mismatch
      also      conn 3 (c.example.com): shared
----  https://a.example.org:8443/  explained
      dialed    a connection that is not open yet
      not       conn 1 (a.example.com): not-covered
      not       conn 2 (d.example.com): not-covered
      not       conn 3 (c.example.com): not-covered

3 requests, 3 connections, 3 handshakes, 0 shared, 1 retried, 0 failed
`
	if diff := cmp.Diff(want, "\n"+normal(l, stdout)); diff != "" || stderr != "" || code != 0 {
		t.Errorf("exit %d, %q (-want +got):\n%s", code, stderr, diff)
	}
}

var millisField = regexp.MustCompile(`"ms":[0-9.]+`)

func TestExplainJSON(t *testing.T) {
	l := fleet(t)
	args := fleetArgs(t, l, "get", line(l, "-json a d explain b d c get c explain c")...)
	args = append(args, l.URL("A.example.ORG.", "/?x=1&y=2"))
	stdout, stderr, code := command(t, args...)
	const (
		conn1 = `"conn":1,"conn_host":"a.example.com"`
		conn2 = `"conn":2,"conn_host":"d.example.com"`
		conn3 = `"conn":3,"conn_host":"c.example.com"`
		wrong = `,"reason":"address-mismatch"}`
		end   = `"bytes":32,"ms":0}`
	)
	want := []string{
		`{"url":"https://a.example.com:8443/","status":200,"protocol":"HTTP/2.0",` + conn1 + `,"shared":false,"reused":false,"reason":"dialed",` +
			`"remote_addr":"127.0.0.1:8443","retried":0,` + end,
		`{"url":"https://d.example.com:8443/","status":200,"protocol":"HTTP/2.0",` + conn2 + `,"shared":false,"reused":false,"reason":"dialed",` +
			`"considered":[{` + conn1 + wrong + `],"remote_addr":"127.0.0.2:8443","retried":0,` + end,
		`{"explain":"https://b.example.com:8443/","host":"b.example.com",` + conn1 + `,"shared":true,"reused":true,"reason":"shared","considered":[{` + conn2 + wrong + `]}`,
		`{"explain":"https://d.example.com:8443/","host":"d.example.com",` + conn2 + `,"shared":false,"reused":true,"reason":"own","considered":[{` + conn1 + wrong + `]}`,
		`{"explain":"https://c.example.com:8443/","host":"c.example.com",` + conn1 + `,"shared":true,"reused":true,"reason":"shared","considered":[{` + conn2 + wrong + `]}`,
		`{"url":"https://c.example.com:8443/","status":200,"protocol":"HTTP/2.0",` + conn3 + `,"shared":false,"reused":false,"reason":"dialed",` +
			`"considered":[{` + conn1 + `,"reason":"misdirected"},{` + conn2 + wrong + `],"remote_addr":"127.0.0.1:8443",` +
			`"misdirected":[{"status":421,` + conn1 + `,"remote_addr":"127.0.0.1:8443","outcome":"retried"}],"retried":1,` + end,
		`{"explain":"https://c.example.com:8443/","host":"c.example.com",` + conn3 + `,"shared":false,"reused":true,"reason":"own",` +
			`"considered":[{` + conn1 + `,"reason":"misdirected"},{` + conn2 + wrong + `]}`,
		`{"explain":"https://A.example.ORG.:8443/?x=1&y=2","host":"a.example.org","shared":false,"reused":false,"reason":"dialed",` +
			`"considered":[{` + conn1 + `,"reason":"not-covered"},{` + conn2 + `,"reason":"not-covered"},{` + conn3 + `,"reason":"not-covered"}]}`,
		`{"summary":{"requests":3,"failed":0,"connections":3,"handshakes":3,"shared":0,"retried":1}}`,
	}
	got := strings.Split(strings.TrimSuffix(millisField.ReplaceAllString(normal(l, stdout), `"ms":0`), "\n"), "\n")
	if diff := cmp.Diff(want, got); diff != "" || stderr != "" || code != 0 {
		t.Errorf("exit %d, %q (-want +got):\n%s", code, stderr, diff)
	}
}

// Explanations open nothing: the connections are those of the fetches.
func TestExplainOpensNothing(t *testing.T) {
	for words, want := range map[string]int{
		"explain a b c d":                  0,
		"get a explain a b c d":            1,
		"explain a d get a explain b c d":  1,
		"get a d explain b c get b":        2,
		"explain -match never a b get a":   1,
		"get -match never a explain b c d": 1,
	} {
		l := fleet(t)
		args := line(l, words)
		stdout, stderr, code := command(t, fleetArgs(t, l, args[0], args[1:]...)...)
		conns, handshakes := l.Record().Accepted(), l.Record().Handshakes()
		if code != 0 || stderr != "" || conns != want || handshakes != want {
			t.Errorf("%s: exit %d, %q, %d connections, %d handshakes, want %d:\n%s", words, code, stderr, conns, handshakes, want, stdout)
		}
	}
}

// An explanation is given when all fetches before it have ended.
func TestExplainWaitsForParallelFetches(t *testing.T) {
	l := fleet(t)
	stdout, stderr, code := command(t, fleetArgs(t, l, "get", line(l, "-parallel 3 a b d explain b d get a")...)...)
	want := regexp.MustCompile(`b\.example\.com:8443/  explained
      (shared|own) .*
      not .*
.*d\.example\.com:8443/  explained
      own .*
      not .*
200 `)
	if code != 0 || stderr != "" || !want.MatchString(normal(l, stdout)) {
		t.Errorf("exit %d, %q:\n%s", code, stderr, stdout)
	}
}

func TestExplainAlone(t *testing.T) {
	l := fleet(t)
	stdout, stderr, code := command(t, fleetArgs(t, l, "explain", line(l, "a b")...)...)
	want := `
----  https://a.example.com:8443/  explained
      dialed    a connection that is not open yet
----  https://b.example.com:8443/  explained
      dialed    a connection that is not open yet
`
	if diff := cmp.Diff(want, "\n"+normal(l, stdout)); diff != "" || stderr != "" || code != 0 {
		t.Errorf("exit %d, %q (-want +got):\n%s", code, stderr, diff)
	}

	stdout, _, code = command(t, fleetArgs(t, l, "explain", line(l, "-json a")...)...)
	want = `{"explain":"https://a.example.com:8443/","host":"a.example.com","shared":false,"reused":false,"reason":"dialed"}` + "\n"
	if diff := cmp.Diff(want, normal(l, stdout)); diff != "" || code != 0 {
		t.Errorf("exit %d (-want +got):\n%s", code, diff)
	}
}

func TestExplainFailures(t *testing.T) {
	l := fleet(t)
	args := fleetArgs(t, l, "explain", line(l, "b get a explain a")...)
	// The entry for all hosts would spare the unknown one its look-up.
	port := ":" + strconv.Itoa(l.Port()) + ":127.0.0.1"
	for i, arg := range args {
		args[i] = strings.Replace(arg, "*"+port, "a.example.com"+port, 1)
	}
	args = append(args, "-resolve", "b.example.com"+port, unknownURL)
	stdout, stderr, code := command(t, args...)
	if code != 1 || stderr != "" || !strings.HasSuffix(stdout, "\n\n1 request, 1 connection, 1 handshake, 0 shared, 0 retried, 1 failed\n") ||
		!regexp.MustCompile(`\nfail  `+unknownURL+`  explained\n      error     .*lookup x+\.example.*\n`).MatchString(stdout) {
		t.Errorf("exit %d, %q:\n%s", code, stderr, stdout)
	}

	stdout, stderr, code = command(t, "explain", "-json", unknownURL)
	want := regexp.MustCompile(`^{"explain":"` + unknownURL + `","shared":false,"reused":false,"error":"[^"]*lookup x+\.example[^"]*"}
{"summary":{"requests":0,"failed":1,"connections":0,"handshakes":0,"shared":0,"retried":0}}
$`)
	if code != 1 || stderr != "" || !want.MatchString(stdout) {
		t.Errorf("exit %d, %q:\n%s", code, stderr, stdout)
	}

	stdout, _, code = command(t, "explain", "-timeout", "1ns", unknownURL)
	if code != 1 || !strings.Contains(stdout, "      error     no explanation within 1ns\n\n0 requests, 0 connections, ") {
		t.Errorf("exit %d:\n%s", code, stdout)
	}
}

func TestExplainShowsNoCredentials(t *testing.T) {
	l := fleet(t)
	secret := func(u string) string { return strings.Replace(u, "://", "://user:secret@", 1) }
	for _, format := range []string{"-json=false", "-json"} {
		args := fleetArgs(t, l, "explain", format, secret(l.URL("a.example.com", "/")), "get", l.URL("a.example.com", "/"), "explain", secret(l.URL("b.example.com", "/")))
		stdout, stderr, code := command(t, args...)
		if code != 0 || strings.Count(stdout, "https://xxxxx@") != 2 {
			t.Errorf("exit %d:\n%s%s", code, stdout, stderr)
		}
		failed, stderr2, code := command(t, "explain", format, secret(unknownURL))
		if code != 1 || strings.Count(failed, "https://xxxxx@") != 1 {
			t.Errorf("exit %d:\n%s%s", code, failed, stderr2)
		}
		if all := stdout + stderr + failed + stderr2; strings.Contains(all, "secret") || strings.Contains(all, "user") {
			t.Errorf("credentials are shown:\n%s", all)
		}
	}
}

// Flags hold for all parts, before and behind them; the words that end at "--"
// are flags, not commands.
func TestExplainFlagsAnywhere(t *testing.T) {
	l := fleet(t)
	for _, words := range []string{
		"-json -match never a explain b",
		"a -json explain -match never b",
		"a explain b -match never -json",
		"a -match never -json -- explain b",
		"-H X-Word:explain a explain -json b -match never",
	} {
		stdout, stderr, code := command(t, fleetArgs(t, l, "get", line(l, words)...)...)
		want := `{"explain":"https://b.example.com:8443/","host":"b.example.com","shared":false,"reused":false,"reason":"dialed",` +
			`"considered":[{"conn":1,"conn_host":"a.example.com","reason":"disabled"}]}`
		lines := strings.Split(normal(l, stdout), "\n")
		if code != 0 || stderr != "" || len(lines) != 4 || lines[1] != want {
			t.Errorf("%s: exit %d, %q:\n%s", words, code, stderr, stdout)
		}
	}
}

// A Host header that names another host keeps requests on own connections
// (C12); one that names the URL's does not.
func TestExplainHeedsTheHostHeader(t *testing.T) {
	l := fleet(t)
	port := ":" + strconv.Itoa(l.Port())
	for host, shared := range map[string]bool{
		"b.example.com" + port:  true,
		"B.Example.Com." + port: true,
		"b.example.com":         false, // port 443
		"inner.example" + port:  false,
		"b..example.com" + port: false,
		"[2001:db8::1]" + port:  false,
	} {
		want := "dialed    a connection that is not open yet\n      not       conn 1 (a.example.com): disabled\n"
		if shared {
			want = "shared    conn 1 (a.example.com)\n"
		}
		for _, words := range []string{"a explain b", "a b"} { // what is told is what happens
			stdout, stderr, code := command(t, fleetArgs(t, l, "get", line(l, "-H Host:"+host+" "+words)...)...)
			if code != 0 || stderr != "" || strings.Contains(words, "explain") && !strings.Contains(stdout, "explained\n      "+want+"\n") ||
				strings.Contains(stdout, "disabled\n") == shared {
				t.Errorf("%s: exit %d, %q:\n%s", host, code, stderr, stdout)
			}
		}
	}
}

func TestExplainWhatIsNetHTTPs(t *testing.T) {
	l := newLab(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"127.0.0.1"}, Protos: []string{"http/1.1"}}})
	u := l.URL("127.0.0.1", "/")
	stdout, stderr, code := command(t, "explain", "-cacert", caFile(t, l), u, "http://127.0.0.1/", "get", u, "explain", u)
	var words []string
	for line := range strings.Lines(stdout) {
		if word, ok := strings.CutPrefix(line, "      "); ok {
			words = append(words, strings.TrimRight(word[:min(len(word), 20)], " \n"))
		}
	}
	want := []string{"dialed    a connecti", "disabled  net/http", "disabled  net/http", "disabled  net/http"}
	if diff := cmp.Diff(want, words); diff != "" || stderr != "" || code != 0 {
		t.Errorf("exit %d, %q (-want +got):\n%s", code, stderr, diff)
	}
}

func TestExplainInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := run(ctx, []string{"explain", "http://a.example/"}, &out, &errs)
	if code != 130 || out.String() != "" || errs.String() != "h2coalesce: interrupted\n" {
		t.Errorf("exit %d, %q, %q", code, out.String(), errs.String())
	}
}
