package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

func TestDemoJSON(t *testing.T) {
	stdout, stderr, code := command(t, "-json")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d, %q", code, stderr)
	}
	var r demoReport
	dec := json.NewDecoder(strings.NewReader(stdout))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatal(err)
	}
	theirs, ours := r.Comparison.NetHTTP, r.Comparison.H2Coalesce
	for _, c := range []*cost{&theirs, &ours} {
		if c.WallMS < millis(handshakeDelay) {
			t.Errorf("%v ms, less than a handshake", c.WallMS)
		}
		if _, ok := cpuTime(); ok && (c.CPUMS == nil || *c.CPUMS <= 0) {
			t.Error("no CPU time")
		}
		c.WallMS, c.CPUMS = 0, nil
	}
	if diff := cmp.Diff(cost{Connections: 20, Handshakes: 20, Lookups: 20, Requests: 100}, theirs); diff != "" {
		t.Errorf("net/http (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(cost{Connections: 1, Handshakes: 1, Lookups: 20, Requests: 100}, ours); diff != "" {
		t.Errorf("h2coalesce (-want +got):\n%s", diff)
	}
	if r.Comparison.Ratio.Handshakes != 20 || r.Comparison.Ratio.Lookups != 1 {
		t.Errorf("ratios %+v", r.Comparison.Ratio)
	}

	s := r.Misdirected
	if diff := cmp.Diff(tally{Requests: 103}, s.Caller); diff != "" {
		t.Errorf("the caller (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(tally{Requests: 104, Misdirected: 1, Connections: 2}, s.Server); diff != "" {
		t.Errorf("the server (-want +got):\n%s", diff)
	}
	if s.Retried != 1 {
		t.Errorf("%d retried", s.Retried)
	}
	var kinds []string
	var reasons []coalesce.Reason
	for _, e := range s.Chapters[1].Events {
		kinds = append(kinds, e.Kind)
		if e.Kind == eventDecided {
			reasons = append(reasons, e.Reason)
		}
	}
	if diff := cmp.Diff([]string{eventDecided, eventMisdirected, eventEvicted, eventDecided, eventAnswered}, kinds); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]coalesce.Reason{coalesce.ReasonShared, coalesce.ReasonDialed}, reasons); diff != "" {
		t.Errorf("decisions (-want +got):\n%s", diff)
	}
}

func TestDemoText(t *testing.T) {
	stdout, stderr, code := command(t)
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d, %q", code, stderr)
	}
	for line := range strings.Lines(stdout) {
		line = strings.TrimSuffix(line, "\n")
		if utf8.RuneCountInString(line) > 80 || strings.TrimRight(line, " \t") != line {
			t.Errorf("more than 80 columns, or space at the end: %q", line)
		}
	}
	if strings.Contains(stdout, "\x1b") {
		t.Error("colour, but no terminal")
	}
	for _, want := range []string{
		`TLS handshakes +20 +1 +20x\n`,
		`\n  421      Misdirected Request, from conn 1\n`,
		`\n  own      conn 2, .*\n  200      OK, 100 times\n`,
		`\nThe server: 104 requests on 2 connections, 1 of them answered 421\.\n`,
	} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("no %s in\n%s", want, stdout)
		}
	}
}

// The system's null device is a character device, as a terminal is.
func TestColourOnlyOnATerminal(t *testing.T) {
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, test := range []struct {
		noColor, term string
		file          *os.File
		want          bool
	}{
		{"", "xterm", device, true},
		{"", "", device, true},
		{"1", "xterm", device, false},
		{"", "dumb", device, false},
		{"", "xterm", file, false},
	} {
		t.Setenv("NO_COLOR", test.noColor)
		t.Setenv("TERM", test.term)
		s := styleOf(test.file)
		if s.on != test.want || strings.Contains(s.green("x"), "\x1b") != test.want {
			t.Errorf("%+v: %v", test, s.on)
		}
	}
}

func TestNumbersForReaders(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_950: "1.0 MB", 1 << 30: "1.1 GB", 1 << 50: "1125.9 TB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for r, want := range map[float64]string{1: "1x", 20: "20x", 9.96: "10x", 2.04: "2x", 4.35: "4.3x", 0.5: "0.5x"} {
		if got := ratioText(r); got != want {
			t.Errorf("%v: %s, want %s", r, got, want)
		}
	}
}
