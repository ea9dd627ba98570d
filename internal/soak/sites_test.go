package soak

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// site is a domain whose hosts live at the same servers.
type site struct {
	domain string
	hosts  int
	homes  []home
	cert   certs
	stray  bool // with one more host, which its certificates do not cover
	mixed  bool // some of its servers speak HTTP/1.1 only
}

// home is one of a site's servers.
type home struct {
	ip     string
	script lab.Server
	lists  int // of how many hosts it sends an ORIGIN frame with its SETTINGS
	only   int // how many hosts it serves, of those its certificate covers; 0: all
}

// certs is what kind of certificates the servers of a site have.
type certs int

const (
	certShared   certs = iota // one wildcard for all servers
	certWildcard              // a wildcard for each server
	certLong                  // all hosts among many other names
	certHalves                // one for every other host, chosen by SNI
)

// sites returns the sites, of 200 hosts in all.
func sites() []site {
	return []site{
		{domain: "alpha.test", hosts: 45, cert: certShared, stray: true, homes: []home{
			{ip: "127.0.0.2", script: lab.Server{MaxStreams: 100}},
			{ip: "127.0.0.3", script: lab.Server{MaxStreams: 10}},
			{ip: "127.0.0.4", script: lab.Server{MaxStreams: 1}, only: 30},
		}},
		{domain: "delta.test", hosts: 20, cert: certWildcard, mixed: true, homes: []home{
			{ip: "127.0.0.9", script: lab.Server{Protos: []string{"http/1.1"}}},
			{ip: "127.0.0.10", script: lab.Server{MaxStreams: 8}},
		}},
		{domain: "beta.test", hosts: 45, cert: certLong, homes: []home{
			{ip: "127.0.0.5", script: lab.Server{MaxStreams: 30}},
			{ip: "127.0.0.6", script: lab.Server{MaxStreams: 2, GoAwayAfter: 200}},
		}},
		{domain: "gamma.test", hosts: 40, cert: certHalves, homes: []home{
			{ip: "127.0.0.7", script: lab.Server{MaxStreams: 50, HandshakeDelay: 30 * time.Millisecond}},
			// Longer than Policy.JoinWait, so that those who wait for the handshake give up.
			{ip: "127.0.0.8", script: lab.Server{MaxStreams: 20, HandshakeDelay: 350 * time.Millisecond}},
		}},
		{domain: "epsilon.test", hosts: 40, cert: certWildcard, homes: []home{
			{ip: "127.0.0.11", script: lab.Server{MaxStreams: 25}, lists: 20},
			{ip: "127.0.0.12", script: lab.Server{MaxStreams: 100, SettingsDelay: 20 * time.Millisecond}, lists: 40},
		}},
		{domain: "zeta.test", hosts: 9, cert: certWildcard, homes: []home{
			{ip: "127.0.0.13"},
			// Beyond a second the client does not wait for the limit, and exceeds it.
			{ip: "127.0.0.14", script: lab.Server{MaxStreams: 5, SettingsDelay: 1100 * time.Millisecond}},
		}},
	}
}

// certificate chooses a certificate for a handshake, as lab.Server has it.
type certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// certificates issues what the servers of a site show, in their order.
func (s *site) certificates(ca *lab.CA, hosts []*host) ([]certificate, error) {
	all := make([]certificate, len(s.homes))
	for i := range s.homes {
		if i > 0 && s.cert == certShared {
			all[i] = all[0]
			continue
		}
		var lists [][]string
		switch s.cert {
		case certLong:
			lists = [][]string{names(hosts, 1, 0)}
			for n := range 200 {
				lists[0] = append(lists[0], fmt.Sprintf("other%d.%s", n, s.domain))
			}
		case certHalves:
			lists = [][]string{names(hosts, 2, 0), names(hosts, 2, 1)}
		default:
			lists = [][]string{{"*." + s.domain}}
		}
		var issued []tls.Certificate
		for _, list := range lists {
			cert, err := ca.Issue(list)
			if err != nil {
				return nil, err
			}
			issued = append(issued, cert)
		}
		all[i] = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			for i := range issued {
				if hello.SupportsCertificate(&issued[i]) == nil {
					return &issued[i], nil
				}
			}
			return &issued[0], nil
		}
	}
	return all, nil
}

// names returns the names of every nth host from one on.
func names(hosts []*host, n, from int) (names []string) {
	for ; from < len(hosts); from += n {
		names = append(names, hosts[from].name)
	}
	return names
}

// idempotent reports whether a request with this method may be processed twice.
func idempotent(method string) bool { return method == http.MethodGet }
