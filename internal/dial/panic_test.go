package dial_test

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/h2coalesce/h2coalesce/internal/dial"
)

// TestP8_APanicEndsTheProcess: the caller's code that dials or resolves runs in
// a goroutine that nobody can recover in, with net/http as here. No request is
// left waiting.
func TestP8_APanicEndsTheProcess(t *testing.T) {
	const variable = "H2COALESCE_TEST_PANIC"
	panics := func(context.Context, string, string) (net.Conn, error) { panic("the dial function's") }
	resolver := resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) { panic("the resolver's") })
	to := dial.Target{Host: "a.example", Port: 443}
	scenes := map[string]func(){
		"net/http's": func() {
			_, _ = (&http.Transport{DialContext: panics}).RoundTrip(newRequest(t, "https://a.example/"))
		},
		"DialContext":    func() { _, _ = dial.New(&http.Transport{DialContext: panics}, nil).Dial(t.Context(), to) },
		"DialTLSContext": func() { _, _ = dial.New(&http.Transport{DialTLSContext: panics}, nil).Dial(t.Context(), to) },
		"Resolver":       func() { _, _ = dial.New(&http.Transport{}, resolver).Resolve(t.Context(), "a.example") },
	}
	if name := os.Getenv(variable); name != "" {
		func() {
			defer func() { _ = recover() }() // in vain
			scenes[name]()
		}()
		t.Fatal("survived")
	}
	for name := range scenes {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+strings.Split(t.Name(), "/")[0]+"$")
			cmd.Env = append(os.Environ(), variable+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "panic: the ") || strings.Contains(string(out), "survived") {
				t.Errorf("%v, output %.500s", err, out)
			}
		})
	}
}
