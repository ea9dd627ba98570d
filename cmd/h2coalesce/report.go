package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// textReporter writes for a person: a line for the answer, and below it a line
// for each step on the way there. For an explanation it is a line for the URL,
// and below it one for what would carry it and one for each other connection.
type textReporter struct {
	w       io.Writer
	style   style
	urlCol  int
	connCol int
}

// Columns are no wider than this; what is longer moves the rest of its line.
const (
	maxURLCol  = 52
	maxConnCol = 33
)

func newTextReporter(w io.Writer, urls []*url.URL) *textReporter {
	t := &textReporter{w: w, style: styleOf(w)}
	for _, u := range urls {
		t.urlCol = max(t.urlCol, len(redacted(u)))
		t.connCol = max(t.connCol, len(connText(9, u.Hostname())))
	}
	t.urlCol, t.connCol = min(t.urlCol, maxURLCol), min(t.connCol, maxConnCol)
	return t
}

// result writes the lines in one go, so that they stay together.
func (t *textReporter) result(r *result) error {
	var b strings.Builder
	status, size := fmt.Sprintf("%-4d", r.status), bytesText(r.bytes)
	if r.err != nil {
		status = "fail"
	}
	if r.status == 0 {
		size = ""
	}
	t.heading(&b, t.style.status(statusOf(r), status), r.url, fmt.Sprintf("%9s  %9s", size, durationText(r.elapsed)))
	for i := range r.steps {
		t.step(&b, r, i)
	}
	if len(r.steps) == 0 && r.remote != "" {
		t.route(&b, string(coalesce.ReasonDisabled), "net/http", r.proto, r.remote)
	}
	t.failure(&b, r.err)
	_, err := io.WriteString(t.w, b.String())
	return err
}

// explanation has dashes where a result has its status, and a word where that
// has what came of it.
func (t *textReporter) explanation(e *explanation) error {
	var b strings.Builder
	status := t.style.dim("----")
	if e.err != nil {
		status = t.style.red("fail")
	}
	t.heading(&b, status, e.url, "explained")
	if d := &e.decision; e.err == nil {
		t.route(&b, string(d.Reason), carrier(d), "", "")
		for _, v := range verdictsOf(d) {
			word := "not"
			if v.Reason == coalesce.ReasonOwn || v.Reason == coalesce.ReasonShared {
				word = "also" // it would do, but comes second
			}
			t.verdict(&b, word, connText(v.Conn, v.ConnHost), v.Reason)
		}
	}
	t.failure(&b, e.err)
	_, err := io.WriteString(t.w, b.String())
	return err
}

// carrier names what would carry a request.
func carrier(d *coalesce.Decision) string {
	switch {
	case d.Reason == coalesce.ReasonDisabled:
		return "net/http"
	case d.Conn != 0:
		return connOf(d.Conn, d.ConnHost, d.Shared)
	case d.Reason == coalesce.ReasonJoined:
		return "a connection whose handshake is under way (" + d.ConnHost + ")"
	}
	return "a connection that is not open yet"
}

// heading is the first line for a URL.
func (t *textReporter) heading(b *strings.Builder, status, url, what string) {
	fmt.Fprintf(b, "%s  %s  %s\n", status, t.style.bold(fmt.Sprintf("%-*s", t.urlCol, url)), what)
}

// failure is the last line for a URL, if there is an error.
func (t *textReporter) failure(b *strings.Builder, err error) {
	if err != nil {
		fmt.Fprintf(b, "      %s  %v\n", t.style.red("error   "), err)
	}
}

// statusOf is the status that the line is coloured by.
func statusOf(r *result) int {
	if r.err != nil {
		return 0
	}
	return r.status
}

func (t *textReporter) step(b *strings.Builder, r *result, i int) {
	s := &r.steps[i]
	if m := s.misdirected; m != nil {
		text := string(m.Outcome)
		if !m.Retried {
			text = "not retried: " + text
		}
		t.route(b, fmt.Sprint(m.Status), connOf(m.Conn, m.ConnHost, m.Shared), text, "")
		return
	}
	d := &s.decision
	proto := "HTTP/2.0" // the pool has no other connections
	t.route(b, string(d.Reason), connOf(d.Conn, d.ConnHost, d.Shared), proto, s.remote)
	// After a 421 the request goes to a connection of its own, whatever the
	// others have to offer.
	if d.Reason == coalesce.ReasonDialed && i == 0 {
		t.refusals(b, d)
	}
}

func (t *textReporter) route(b *strings.Builder, word, conn, what, remote string) {
	line := fmt.Sprintf("%-*s  %-8s  %s", t.connCol, conn, what, remote)
	fmt.Fprintf(b, "      %s  %s\n", t.style.reason(word, fmt.Sprintf("%-8s", word)), strings.TrimRight(line, " "))
}

// maxRefusals is how many connections are named that have the same reason.
const maxRefusals = 2

// refusals tells what kept the request from the open connections.
func (t *textReporter) refusals(b *strings.Builder, d *coalesce.Decision) {
	var order []coalesce.Reason
	byReason := make(map[coalesce.Reason][]string)
	for _, v := range verdictsOf(d) {
		if byReason[v.Reason] == nil {
			order = append(order, v.Reason)
		}
		byReason[v.Reason] = append(byReason[v.Reason], connText(v.Conn, v.ConnHost))
	}
	for _, why := range order {
		conns := byReason[why]
		text := strings.Join(conns[:min(len(conns), maxRefusals)], ", ")
		if more := len(conns) - maxRefusals; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		t.verdict(b, "not", text, why)
	}
}

func (t *textReporter) verdict(b *strings.Builder, word, conns string, why coalesce.Reason) {
	fmt.Fprintf(b, "      %s\n", t.style.dim(fmt.Sprintf("%-8s  %s: %s", word, conns, why)))
}

// connOf names a connection, and its host where that is another one.
func connOf(id uint64, host string, shared bool) string {
	if shared {
		return connText(id, host)
	}
	return fmt.Sprintf("conn %d", id)
}

func connText(id uint64, host string) string { return fmt.Sprintf("conn %d (%s)", id, host) }

func (t *textReporter) summary(s *summary) error {
	_, err := fmt.Fprintf(t.w, "\n%s, %s, %s, %d shared, %d retried, %d failed\n",
		counted(s.Requests, "request"), counted(s.Connections, "connection"), counted(s.Handshakes, "handshake"),
		s.Shared, s.Retried, s.Failed)
	return err
}
