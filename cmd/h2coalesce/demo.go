package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// demoReport is the demonstration as one JSON document.
type demoReport struct {
	Comparison  *comparison `json:"comparison"`
	Misdirected *story      `json:"misdirected"`
}

func runDemo(ctx context.Context, args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("h2coalesce", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // run prints the error
	asJSON := fs.Bool("json", false, "")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return runHelp(nil, stdout)
	case err != nil:
		return &usageError{usageLine, err.Error()}
	case fs.NArg() > 0:
		return &usageError{usageLine, fmt.Sprintf("unexpected argument %q", fs.Arg(0))}
	}
	if *asJSON {
		return demoJSON(ctx, stdout)
	}
	return demoText(ctx, stdout)
}

func demoJSON(ctx context.Context, stdout io.Writer) error {
	var r demoReport
	var err error
	if r.Comparison, err = compare(ctx); err != nil {
		return err
	}
	if r.Misdirected, err = newStory(ctx, nil); err != nil {
		return err
	}
	enc := json.NewEncoder(stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// demoText prints for a person, in lines of at most 80 columns.
func demoText(ctx context.Context, stdout io.Writer) error {
	t := &demoTeller{w: stdout, style: styleOf(stdout)}
	t.printf("%s\n\n", t.style.bold("h2coalesce: one HTTP/2 connection for all hosts that its certificate covers"))
	t.printf("%d hosts, one certificate for %s. The first requests to all of them\n", compareHosts, compareCertName)
	t.printf("start at once; each host gets %d, one after the other.\n\n", comparePerHost)
	c, err := compare(ctx)
	if err != nil {
		return err
	}
	t.comparison(c)

	t.printf("\n%s\n\n", t.style.bold("One 421 (Misdirected Request), as it happens"))
	t.printf("A server shows one certificate for %s and %s, but\n", hostA, hostB)
	t.printf("answers for %s only where the handshake names it (SNI).\n", hostB)
	s, err := newStory(ctx, t)
	if err != nil {
		return err
	}
	t.moral(s)
	t.printf("\nOn hosts of your own:  %s\n", t.style.bold("h2coalesce get https://... https://..."))
	return t.err
}

// demoTeller writes the demonstration as text.
type demoTeller struct {
	w     io.Writer
	style style
	err   error // of the first write that failed
}

func (t *demoTeller) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

// comparison prints the table and how it was made.
func (t *demoTeller) comparison(c *comparison) {
	a, b, r := &c.NetHTTP, &c.H2Coalesce, &c.Ratio
	t.printf("  %s\n", t.style.dim(fmt.Sprintf("%-16s  %10s  %10s  %6s", "", "net/http", "h2coalesce", "ratio")))
	count := func(name string, a, b int, r float64) {
		t.row(name, fmt.Sprint(a), fmt.Sprint(b), r)
	}
	count("connections", a.Connections, b.Connections, r.Connections)
	count("TLS handshakes", a.Handshakes, b.Handshakes, r.Handshakes)
	count("DNS look-ups", a.Lookups, b.Lookups, r.Lookups)
	count("requests", a.Requests, b.Requests, r.Requests)
	t.row("wall time", millisText(a.WallMS), millisText(b.WallMS), r.Wall)
	if r.CPU != nil {
		t.row("CPU time", millisText(*a.CPUMS), millisText(*b.CPUMS), *r.CPU)
	}
	t.printf("\nBoth fetch from servers inside this process, over loopback, and start cold.\n")
	t.printf("Times are medians of %d runs each, taken in turn. Every handshake is held up\n", c.Runs)
	t.printf("for %g ms, in place of a network's delay.", c.HandshakeDelayMS)
	if r.CPU != nil {
		t.printf(" CPU time is that of the process,\nthe servers' share of the work included.")
	}
	t.printf("\nHosts are looked up all the same: that a host resolves to a connection's\n")
	t.printf("address is the evidence that it may share it.\n")
}

func (t *demoTeller) row(name, a, b string, ratio float64) {
	text := fmt.Sprintf("%6s", ratioText(ratio))
	if ratio >= 1.05 {
		text = t.style.green(text)
	}
	t.printf("  %-16s  %10s  %10s  %s\n", name, a, b, text)
}

func millisText(ms float64) string { return fmt.Sprintf("%.1f ms", ms) }

// ratioText has two significant digits, which is more than a run repeats.
func ratioText(r float64) string {
	text := fmt.Sprintf("%.1f", r)
	if r >= 10 {
		text = fmt.Sprintf("%.0f", r)
	}
	return strings.TrimSuffix(text, ".0") + "x"
}

// chapter prints what is asked for.
func (t *demoTeller) chapter(c *chapter) {
	times := ""
	if c.Times > 1 {
		times = fmt.Sprintf(", %d times more", c.Times)
	}
	t.printf("\n%s\n", t.style.bold("GET https://"+c.Host+"/"+times))
}

// event prints what happens, the most important word first.
func (t *demoTeller) event(c *chapter, e *event) {
	switch e.Kind {
	case eventDecided:
		t.line(t.style.reason(string(e.Reason), fmt.Sprintf("%-7s", e.Reason)), why(c, e))
	case eventMisdirected:
		t.line(t.style.yellow(fmt.Sprintf("%-7d", e.Status)), []string{fmt.Sprintf("%s, from conn %d", http.StatusText(e.Status), e.Conn)})
	case eventEvicted:
		t.line("evicted", []string{fmt.Sprintf("%s leaves conn %d, which stays open for %s", c.Host, e.Conn, strings.Join(e.ConnHosts, " and "))})
	case eventAnswered:
		text := http.StatusText(e.Status)
		switch {
		case e.Times > 1:
			text += fmt.Sprintf(", %d times", e.Times)
		case c.retried():
			text += ", the only answer that the caller sees"
		}
		t.line(t.style.status(e.Status, fmt.Sprintf("%-7d", e.Status)), []string{text})
	}
}

// retried reports whether a request of the chapter was sent again.
func (c *chapter) retried() bool {
	for _, e := range c.Events {
		if e.Kind == eventMisdirected {
			return true
		}
	}
	return false
}

// line prints a word and the lines that explain it.
func (t *demoTeller) line(word string, text []string) {
	t.printf("  %s  %s\n", word, strings.Join(text, "\n           "))
}

// why explains a decision in lines that fit beside its word.
func why(c *chapter, e *event) []string {
	conn := fmt.Sprintf("conn %d", e.Conn)
	switch e.Reason {
	case coalesce.ReasonOwn:
		return []string{conn + ", made for " + c.Host + " and open still"}
	case coalesce.ReasonShared, coalesce.ReasonJoined:
		return []string{
			fmt.Sprintf("%s (%s): its certificate covers", conn, e.ConnHost),
			c.Host + ", which resolves to its address",
		}
	}
	if c.retried() {
		return []string{conn + " for " + c.Host + ", in a handshake that names it"}
	}
	if len(e.Considered) == 0 {
		return []string{conn + " for " + c.Host + ": no connection is open yet"}
	}
	return []string{conn + " for " + c.Host}
}

// moral prints what the server saw.
func (t *demoTeller) moral(s *story) {
	t.printf("\nThe caller: %s, %d of them answered 421.\n", counted(s.Caller.Requests, "request"), s.Caller.Misdirected)
	t.printf("The server: %s on %s, %d of them answered 421.\n", counted(s.Server.Requests, "request"),
		counted(s.Server.Connections, "connection"), s.Server.Misdirected)
}
