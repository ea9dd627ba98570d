package integration

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// startBackend starts an HTTP/1.1 server that tells what has reached it, for
// servers that pass requests on. It returns its address.
func startBackend(t *testing.T) string {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the server has given up
		}
		fmt.Fprintf(w, "host=%s %s\n", withoutPort(r.Host), digest(string(body)))
	}))
	t.Cleanup(backend.Close)
	return strings.TrimPrefix(backend.URL, "http://")
}

// digest is what a server says of a body that it has received.
func digest(body string) string {
	return fmt.Sprintf("length=%d sha256=%x", len(body), sha256.Sum256([]byte(body)))
}
