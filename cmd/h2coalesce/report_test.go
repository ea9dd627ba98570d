package main

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// The command has ended its fetches when it explains, so it seldom meets a
// handshake that is under way.
func TestReportOfAHandshakeUnderWay(t *testing.T) {
	e := &explanation{url: "https://b.example.com/", decision: coalesce.Decision{
		Host: "b.example.com", ConnHost: "a.example.com", Shared: true, Reason: coalesce.ReasonJoined,
		Considered: []coalesce.Verdict{{Conn: 7, ConnHost: "x.example.com", Reason: coalesce.ReasonFull}},
	}}
	var text, asJSON bytes.Buffer
	if err := newTextReporter(&text, nil).explanation(e); err != nil {
		t.Fatal(err)
	}
	if err := newJSONReporter(&asJSON).explanation(e); err != nil {
		t.Fatal(err)
	}
	want := `----  https://b.example.com/  explained
      joined    a connection whose handshake is under way (a.example.com)
      not       conn 7 (x.example.com): full
{"explain":"https://b.example.com/","host":"b.example.com","conn_host":"a.example.com","shared":true,"reused":false,"reason":"joined","considered":[{"conn":7,"conn_host":"x.example.com","reason":"full"}]}
`
	if diff := cmp.Diff(want, text.String()+asJSON.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
