package soak

import (
	"fmt"
	"sync/atomic"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// world is what the transport is loaded against, and what both sides know.
type world struct {
	*lab.Lab
	seed    uint64
	content content
	ledger  *ledger
	totals  *totals
	conns   conns
	uploads uploads

	byOrigin bool // Policy.Match is MatchOrigin
	vetoes   bool // Policy.Allow is set

	hosts   []*host
	byName  map[string]*host
	servers []*server

	rough   atomic.Bool  // the servers end connections under way
	serving atomic.Int64 // handlers that run
}

// host is a name that requests are sent to.
type host struct {
	name  string
	homes []*server // that serve it; DNS leads to no others

	// stray says that no certificate covers it: nobody may get a request for it.
	stray bool
	// alone says that Policy.Allow vetoes its sharing.
	alone bool

	turns atomic.Int32 // how its servers answer: a turning
}

// turning is how the servers of a host answer its requests just now.
type turning int32

const (
	turnsNone   turning = iota // they serve it
	turnsOthers                // 421 on connections for other hosts
	turnsSome                  // 421 at random
	turnsAll                   // 421 always
)

// server is one server, at its address.
type server struct {
	site
	ip     string
	http1  bool // it speaks HTTP/1.1 only
	world  *world
	serves map[string]*host
	first  map[string]bool // listed in an ORIGIN frame that comes with SETTINGS; nil: there is none
	hellos hellos
	slow   atomic.Int64 // time.Duration that each request takes besides
}

// newWorld starts the servers and fills in the DNS. The caller closes it.
func newWorld(seed uint64) (*world, error) {
	l, err := lab.New()
	if err != nil {
		return nil, err
	}
	l.Record().DisableRequests()
	w := &world{
		Lab:     l,
		seed:    seed,
		content: newContent(seed),
		ledger:  newLedger(),
		totals:  newTotals(),
		byName:  make(map[string]*host),

		byOrigin: seed%2 == 0,
		vetoes:   seed%4 < 2,
	}
	w.uploads.ledger = w.ledger
	for _, s := range sites() {
		if err := w.build(s); err != nil {
			l.Close()
			return nil, err
		}
	}
	return w, nil
}

// build starts the servers of a site and names its hosts.
func (w *world) build(s site) error {
	var hosts []*host
	d := roll(w.seed, 't', uint64(len(w.hosts)))
	for i := range s.hosts {
		h := &host{name: fmt.Sprintf("h%d.%s", i, s.domain), alone: i%17 == 16}
		h.turns.Store(int32(pick(d, turnings()...)))
		hosts = append(hosts, h)
	}
	certs, err := s.certificates(w.CA(), hosts)
	if err != nil {
		return err
	}
	for i, at := range s.homes {
		srv := &server{site: s, ip: at.ip, http1: at.script.Protos != nil, world: w, serves: make(map[string]*host)}
		for n, h := range hosts {
			if at.only == 0 || n < at.only {
				h.homes = append(h.homes, srv)
				srv.serves[h.name] = h
			}
		}
		script := at.script
		script.Certificates = certs[i]
		script.Handler = srv
		script.OnConn = srv.accept
		if at.lists > 0 {
			script.Origins = w.origins(hosts[:at.lists])
			script.Certificates = srv.hellos.noting(certs[i])
			srv.first = make(map[string]bool)
			for _, h := range hosts[:at.lists] {
				srv.first[h.name] = true
			}
		}
		if err := w.Serve(at.ip, script); err != nil {
			return err
		}
		w.servers = append(w.servers, srv)
	}
	if s.stray {
		// It lives at a server whose certificate does not name it.
		h := &host{name: "stray.test", homes: w.servers[:1], stray: true}
		hosts = append(hosts, h)
	}
	for _, h := range hosts {
		w.hosts = append(w.hosts, h)
		w.byName[h.name] = h
		w.Host(h.name, h.homes[0].ip)
	}
	return nil
}

// origins returns the origins of hosts, as ORIGIN frames list them.
func (w *world) origins(hosts []*host) []string {
	origins := make([]string, 0, len(hosts))
	for _, h := range hosts {
		origins = append(origins, w.URL(h.name, ""))
	}
	return origins
}

// mixed reports whether the host may be at a server without HTTP/2.
func (h *host) mixed() bool { return h.homes[0].site.mixed }
