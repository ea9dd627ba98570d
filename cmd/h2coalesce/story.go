package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

const (
	hostA = "a.example.com"
	hostB = "b.example.com"

	storyRepeats = 100 // requests that show that the 421 is not met again
)

// Kinds of event.
const (
	eventDecided     = "decided"     // a connection is chosen
	eventMisdirected = "misdirected" // a 421 arrives
	eventEvicted     = "evicted"     // the host is taken off the connection
	eventAnswered    = "answered"    // the caller has its answer
)

// event is something that happens to a request of the story.
type event struct {
	Kind       string            `json:"kind"`
	Times      int               `json:"times"` // in the same way, one after the other
	Conn       uint64            `json:"conn,omitempty"`
	ConnHost   string            `json:"conn_host,omitempty"`
	Reason     coalesce.Reason   `json:"reason,omitempty"`     // decided
	Considered []verdict         `json:"considered,omitempty"` // decided
	Status     int               `json:"status,omitempty"`     // misdirected, answered
	Outcome    transport.Outcome `json:"outcome,omitempty"`    // misdirected
	ConnHosts  []string          `json:"conn_hosts,omitempty"` // evicted: the hosts that stay
}

// verdict is a coalesce.Verdict in JSON.
type verdict struct {
	Conn     uint64          `json:"conn"`
	ConnHost string          `json:"conn_host"`
	Reason   coalesce.Reason `json:"reason"`
}

// verdictsOf returns what is said of the connections other than the chosen one.
func verdictsOf(d *coalesce.Decision) []verdict {
	var vs []verdict
	for _, v := range d.Considered {
		if v.Conn != d.Conn {
			vs = append(vs, verdict(v))
		}
	}
	return vs
}

// chapter is what happens to the requests of one step.
type chapter struct {
	Host   string   `json:"host"`
	Times  int      `json:"times"`
	Events []*event `json:"events"`
}

// story is a server that answers 421, met by a client that shares connections.
type story struct {
	Chapters []*chapter `json:"chapters"`
	Caller   tally      `json:"caller"`  // what the code above the Transport sees
	Server   tally      `json:"server"`  // what the server's record says
	Retried  uint64     `json:"retried"` // Transport.Stats
}

type tally struct {
	Requests    int `json:"requests"`
	Misdirected int `json:"status_421"`
	Connections int `json:"connections,omitempty"`
}

// teller is told of the chapters and the events while they happen.
type teller interface {
	chapter(*chapter)
	event(*chapter, *event)
}

// storyteller goes through the story.
type storyteller struct {
	story
	lab    *lab.Lab
	tr     *transport.Transport
	client *http.Client
	teller teller // may be nil
}

// newStory runs the story. The server's certificate covers two hosts, of which
// it serves one only on connections made for it, as a front end does that picks
// the back end by SNI.
func newStory(ctx context.Context, t teller) (*story, error) {
	l, err := lab.New()
	if err != nil {
		return nil, err
	}
	defer l.Close()
	err = l.Serve("127.0.0.1", lab.Server{
		Names:       []string{hostA, hostB},
		Misdirected: func(r *lab.Request) bool { return r.Host() == hostB && r.SNI != hostB },
	})
	if err != nil {
		return nil, err
	}
	l.Host(hostA, "127.0.0.1")
	l.Host(hostB, "127.0.0.1")
	tr := &transport.Transport{Base: &http.Transport{TLSClientConfig: l.TLSConfig()}, Resolver: l.Resolver()}
	defer tr.Close()

	s := &storyteller{lab: l, tr: tr, client: &http.Client{Transport: tr}, teller: t}
	for _, step := range []chapter{{hostA, 1, nil}, {hostB, 1, nil}, {hostB, storyRepeats, nil}, {hostA, 1, nil}} {
		if err := s.chapter(ctx, &step); err != nil {
			return nil, err
		}
	}
	s.Server = tally{
		Requests:    l.Record().Count(func(lab.RequestRecord) bool { return true }),
		Misdirected: l.Record().Count(func(q lab.RequestRecord) bool { return q.Status == http.StatusMisdirectedRequest }),
		Connections: l.Record().Accepted(),
	}
	s.Retried = tr.Stats().Retried
	return &s.story, nil
}

// chapter sends a host its requests, one after the other.
func (s *storyteller) chapter(ctx context.Context, c *chapter) error {
	s.Chapters = append(s.Chapters, c)
	if s.teller != nil {
		s.teller.chapter(c)
	}
	happens := func(e event) { s.happens(c, &e) }
	ctx = transport.WithTrace(ctx, &transport.Trace{
		Decided: func(d coalesce.Decision) {
			happens(event{Kind: eventDecided, Conn: d.Conn, ConnHost: d.ConnHost, Reason: d.Reason, Considered: verdictsOf(&d)})
		},
		Misdirected: func(m transport.Misdirected) {
			happens(event{Kind: eventMisdirected, Conn: m.Conn, ConnHost: m.ConnHost, Status: m.Status, Outcome: m.Outcome})
			if e, ok := s.evicted(m.Conn, m.Host); ok {
				happens(e)
			}
		},
	})
	for range c.Times {
		status, err := discard(ctx, s.client, s.lab.URL(c.Host, "/"))
		if err != nil {
			return fmt.Errorf("%s: %w", c.Host, err)
		}
		s.Caller.Requests++
		if status == http.StatusMisdirectedRequest {
			s.Caller.Misdirected++
		}
		happens(event{Kind: eventAnswered, Status: status})
	}
	if s.teller != nil && c.Times > 1 {
		for _, e := range c.Events {
			s.teller.event(c, e)
		}
	}
	return nil
}

// evicted reads from the connection itself that it carries the host no more.
func (s *storyteller) evicted(conn uint64, host string) (event, bool) {
	for _, c := range s.tr.Conns() {
		if c.ID != conn {
			continue
		}
		for _, excluded := range c.Excluded {
			if excluded == host {
				return event{Kind: eventEvicted, Conn: conn, ConnHosts: c.Hosts}, true
			}
		}
	}
	return event{}, false
}

// happens adds an event to the chapter, and tells of it at once unless it is
// one of many that are likely to be alike.
func (s *storyteller) happens(c *chapter, e *event) {
	for _, known := range c.Events {
		if c.Times > 1 && known.Kind == e.Kind && known.Conn == e.Conn && known.Reason == e.Reason && known.Status == e.Status {
			known.Times++
			return
		}
	}
	e.Times = 1
	c.Events = append(c.Events, e)
	if s.teller != nil && c.Times == 1 {
		s.teller.event(c, e)
	}
}
