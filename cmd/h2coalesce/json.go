package main

import (
	"encoding/json"
	"io"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/transport"
)

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
	URL    string `json:"url"`
	Status int    `json:"status,omitempty"`
	Proto  string `json:"protocol,omitempty"`
	jsonRoute
	Remote      string            `json:"remote_addr,omitempty"`
	Misdirected []jsonMisdirected `json:"misdirected,omitempty"`
	Retried     int               `json:"retried"`
	Bytes       int64             `json:"bytes"`
	MS          float64           `json:"ms"`
	Error       string            `json:"error,omitempty"`
}

// jsonExplanation is an explanation in JSON. Its fields are documented in
// explainHelpText.
type jsonExplanation struct {
	Explain string `json:"explain"` // the URL; no other object has this field
	Host    string `json:"host,omitempty"`
	jsonRoute
	Error string `json:"error,omitempty"`
}

// jsonRoute is a coalesce.Decision in JSON, but for the host.
type jsonRoute struct {
	Conn       uint64          `json:"conn,omitempty"` // absent: none, or one that is not open yet
	ConnHost   string          `json:"conn_host,omitempty"`
	Shared     bool            `json:"shared"`
	Reused     bool            `json:"reused"`
	Reason     coalesce.Reason `json:"reason,omitempty"`
	Considered []verdict       `json:"considered,omitempty"` // the open connections but for the chosen one
}

func routeOf(d *coalesce.Decision) jsonRoute {
	return jsonRoute{d.Conn, d.ConnHost, d.Shared, d.Reused, d.Reason, verdictsOf(d)}
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
		out.jsonRoute = routeOf(d)
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

func (j *jsonReporter) explanation(e *explanation) error {
	out := jsonExplanation{Explain: e.url, Host: e.decision.Host, jsonRoute: routeOf(&e.decision)}
	if e.err != nil {
		out.Error = e.err.Error()
	}
	return j.enc.Encode(out)
}

func (j *jsonReporter) summary(s *summary) error {
	return j.enc.Encode(struct {
		Summary *summary `json:"summary"`
	}{s})
}
