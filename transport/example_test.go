package transport_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// serve starts a server for *.example.com on a loopback address, which a, b and
// c resolve to. It misdirects requests for c that come on another's connection.
func serve() *lab.Lab {
	l, err := lab.New()
	if err != nil {
		log.Fatal(err)
	}
	err = l.Serve("127.0.0.1", lab.Server{
		Names:       []string{"*.example.com"},
		Misdirected: func(r *lab.Request) bool { return r.Host() == "c.example.com" && r.SNI != r.Host() },
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c"} {
		l.Host(name+".example.com", "127.0.0.1")
	}
	return l
}

// Two hosts that one certificate and one address stand for share a connection.
func Example() {
	servers := serve()
	defer servers.Close()

	// Base and Resolver lead to the example's own servers. Without them it
	// would be &transport.Transport{}.
	tr := &transport.Transport{
		Base:     &http.Transport{TLSClientConfig: servers.TLSConfig()},
		Resolver: servers.Resolver(),
	}
	defer tr.Close()
	client := &http.Client{Transport: tr}

	for _, host := range []string{"a.example.com", "b.example.com"} {
		res, err := client.Get(servers.URL(host, "/"))
		if err != nil {
			log.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		fmt.Println(host, res.Status)
	}

	stats := tr.Stats()
	fmt.Println("connections:", stats.Conns, "shared requests:", stats.Shared)
	// Output:
	// a.example.com 200 OK
	// b.example.com 200 OK
	// connections: 1 shared requests: 1
}

// A trace tells which connection each request went on and why, and what became
// of a 421.
func ExampleWithTrace() {
	servers := serve()
	defer servers.Close()
	tr := &transport.Transport{
		Base:     &http.Transport{TLSClientConfig: servers.TLSConfig()},
		Resolver: servers.Resolver(),
	}
	defer tr.Close()

	ctx := transport.WithTrace(context.Background(), &transport.Trace{
		Decided: func(d coalesce.Decision) {
			fmt.Printf("%s: on connection %d of %s (%s)\n", d.Host, d.Conn, d.ConnHost, d.Reason)
		},
		Misdirected: func(m transport.Misdirected) {
			fmt.Printf("%s: answered %d on connection %d (%s)\n", m.Host, m.Status, m.Conn, m.Outcome)
		},
	})
	for _, host := range []string{"a.example.com", "b.example.com", "c.example.com", "c.example.com"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, servers.URL(host, "/"), nil)
		if err != nil {
			log.Fatal(err)
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			log.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	// Output:
	// a.example.com: on connection 1 of a.example.com (dialed)
	// b.example.com: on connection 1 of a.example.com (shared)
	// c.example.com: on connection 1 of a.example.com (shared)
	// c.example.com: answered 421 on connection 1 (retried)
	// c.example.com: on connection 2 of c.example.com (dialed)
	// c.example.com: on connection 2 of c.example.com (own)
}
