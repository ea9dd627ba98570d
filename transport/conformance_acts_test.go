package transport_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// serves is a server that answers for these hosts on any connection, and for
// others where the handshake named them.
func serves(hosts ...string) lab.Server {
	return lab.Server{Misdirected: func(q *lab.Request) bool {
		for _, h := range hosts {
			if first(q.Host()) == h {
				return false
			}
		}
		return q.Host() != q.SNI
	}}
}

// slow has requests wait, so that those which are sent together are all on their
// way before one is answered.
func slow(s lab.Server) lab.Server {
	s.Delay = func(*lab.Request) time.Duration { return time.Millisecond }
	return s
}

// first is the first label of a host.
func first(host string) string {
	label, _, _ := strings.Cut(host, ".")
	return label
}

func full(host string) string { return host + ".example.com" }

func gets(host string, want int) act {
	return func(s *scene) {
		s.t.Helper()
		if a := s.get(full(host)); a.status != want || a.err != nil || a.body == "" && want == 421 {
			s.t.Errorf("GET %s: %+v, want %d", host, a, want)
		}
	}
}

func times(n int, a act) act {
	return func(s *scene) {
		for range n {
			a(s)
		}
	}
}

// atOnce has n requests on their way at the same time.
func atOnce(n int, host string) act {
	return func(s *scene) {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { s.ok(full(host)) })
		}
		wg.Wait()
	}
}

func in(partition, host string) act {
	return func(s *scene) { s.okContext(transport.WithPartition(s.t.Context(), partition), full(host)) }
}

// The kinds of bodies: with GetBody; with a ContentLength; with neither.
type bodyKind int

const (
	fromMemory bodyKind = iota
	ofKnownLength
	ofUnknownLength
)

func posts(host string, kind bodyKind) act {
	return func(s *scene) {
		s.t.Helper()
		req := s.request(s.t.Context(), http.MethodPost, full(host), strings.NewReader("body"))
		if kind != fromMemory {
			req.GetBody = nil
		}
		if kind == ofUnknownLength {
			req.ContentLength = -1
		}
		if a := s.do(req); a.status != 200 || a.err != nil {
			s.t.Errorf("POST %s: %+v", host, a)
		}
	}
}

func closeConn(id int) act {
	return func(s *scene) {
		for _, c := range s.Conns() {
			if c.ID() == id {
				c.Close()
			}
		}
		sleep(0)
	}
}

func closeIdle(s *scene) { s.tr.CloseIdleConnections(); sleep(0) }

func wait(d time.Duration) act { return func(*scene) { sleep(d + time.Second) } }

// refuseDials has later dials fail. What is open stays so.
func refuseDials(s *scene) { s.refusing.Store(true) }

func failsAs421(host string) act {
	return func(s *scene) {
		s.t.Helper()
		a := s.get(full(host))
		m, ok := errors.AsType[*transport.MisdirectedError](a.err)
		if !ok || m.Misdirected.Status != 421 || !errors.Is(a.err, syscall.ECONNREFUSED) {
			s.t.Errorf("GET %s: %+v, want an error that tells the 421 and the failure", host, a)
		}
	}
}

func fails(host string) act {
	return func(s *scene) {
		s.t.Helper()
		a := s.get(full(host))
		if _, ok := errors.AsType[*transport.MisdirectedError](a.err); ok || !errors.Is(a.err, syscall.ECONNREFUSED) {
			s.t.Errorf("GET %s: %+v, want the failure alone", host, a)
		}
	}
}

// folded writes what stands more than twice in a row once, with how often.
func folded(path []string) (out []string) {
	for i := 0; i < len(path); {
		n := 1
		for i+n < len(path) && path[i+n] == path[i] {
			n++
		}
		if n > 2 {
			out = append(out, fmt.Sprintf("%d x %s", n, path[i]))
		} else {
			out = append(out, path[i:i+n]...)
		}
		i += n
	}
	return out
}
