package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/transport"
)

// textReporter writes for a person: a line for the answer, and below it a line
// for each step on the way there.
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
	fmt.Fprintf(&b, "%s  %s  %9s  %9s\n", t.style.status(statusOf(r), status), t.style.bold(fmt.Sprintf("%-*s", t.urlCol, r.url)),
		size, durationText(r.elapsed))
	for i := range r.steps {
		t.step(&b, r, i)
	}
	if len(r.steps) == 0 && r.remote != "" {
		t.route(&b, string(coalesce.ReasonDisabled), "net/http", r.proto, r.remote)
	}
	if r.err != nil {
		fmt.Fprintf(&b, "      %s  %v\n", t.style.red("error   "), r.err)
	}
	_, err := io.WriteString(t.w, b.String())
	return err
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
		fmt.Fprintf(b, "      %s\n", t.style.dim(fmt.Sprintf("%-8s  %s: %s", "not", text, why)))
	}
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

// jsonReporter writes an object a line.
type jsonReporter struct{ enc *json.Encoder }

func newJSONReporter(w io.Writer) *jsonReporter {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // URLs have ampersands
	return &jsonReporter{enc}
}

// jsonResult is a result in JSON. What concerns the connection is about the one
// that the answer came by.
type jsonResult struct {
	URL         string            `json:"url"`
	Status      int               `json:"status,omitempty"`
	Proto       string            `json:"protocol,omitempty"`
	Conn        uint64            `json:"conn,omitempty"`
	ConnHost    string            `json:"conn_host,omitempty"`
	Shared      bool              `json:"shared"`
	Reused      bool              `json:"reused"`
	Reason      coalesce.Reason   `json:"reason,omitempty"`
	Considered  []verdict         `json:"considered,omitempty"`
	Remote      string            `json:"remote_addr,omitempty"`
	Misdirected []jsonMisdirected `json:"misdirected,omitempty"`
	Retried     int               `json:"retried"`
	Bytes       int64             `json:"bytes"`
	MS          float64           `json:"ms"`
	Error       string            `json:"error,omitempty"`
}

type jsonMisdirected struct {
	Status   int               `json:"status"`
	Conn     uint64            `json:"conn"`
	ConnHost string            `json:"conn_host"`
	Remote   string            `json:"remote_addr"`
	Outcome  transport.Outcome `json:"outcome"`
}

func (j *jsonReporter) result(r *result) error {
	out := jsonResult{
		URL:     r.url,
		Status:  r.status,
		Proto:   r.proto,
		Remote:  r.remote,
		Retried: r.retried(),
		Bytes:   r.bytes,
		MS:      millis(r.elapsed),
	}
	if d := r.last(); d != nil {
		out.Conn, out.ConnHost, out.Shared, out.Reused, out.Reason = d.Conn, d.ConnHost, d.Shared, d.Reused, d.Reason
		out.Considered = verdictsOf(d)
	} else if r.remote != "" {
		out.Reason = coalesce.ReasonDisabled
	}
	for _, s := range r.steps {
		if m := s.misdirected; m != nil {
			out.Misdirected = append(out.Misdirected, jsonMisdirected{m.Status, m.Conn, m.ConnHost, s.remote, m.Outcome})
		}
	}
	if r.err != nil {
		out.Error = r.err.Error()
	}
	return j.enc.Encode(out)
}

func (j *jsonReporter) summary(s *summary) error {
	return j.enc.Encode(struct {
		Summary *summary `json:"summary"`
	}{s})
}
