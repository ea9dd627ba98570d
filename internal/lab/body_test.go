package lab_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

func random(n int) []byte {
	src := rand.NewChaCha8([32]byte{byte(n)})
	b := make([]byte, n)
	_, _ = src.Read(b)
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func TestUploads(t *testing.T) {
	hash := lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, strconv.FormatInt(r.ContentLength, 10)+" "+sum(b))
	})}
	both(t, hash, func(t *testing.T, l *lab.Lab, client *http.Client) {
		var wg sync.WaitGroup
		for _, size := range []int{0, 1, 16384, 65536, 3 << 20, 9<<20 + 7} {
			for _, known := range []bool{true, false} {
				data, length := random(size), int64(size)
				var body io.Reader = bytes.NewReader(data)
				if !known {
					body, length = io.MultiReader(body), -1
				}
				wg.Go(func() {
					resp, err := client.Post(l.URL("a.example.com", "/"), "", body)
					if err != nil {
						t.Errorf("%d bytes: %v", size, err)
						return
					}
					defer func() { _ = resp.Body.Close() }()
					got, err := io.ReadAll(resp.Body)
					want := strconv.FormatInt(length, 10) + " " + sum(data)
					if err != nil || string(got) != want {
						t.Errorf("%d bytes: got %s, %v, want %s", size, got, err, want)
					}
				})
			}
		}
		wg.Wait()
		if n := l.Record().Count(func(q lab.RequestRecord) bool { return q.BodyBytes == 9<<20+7 }); n != 2 {
			t.Errorf("%d requests recorded with the largest body", n)
		}
	})
}

// A handler that reads nothing must not use up the connection's window.
func TestUploadsNobodyReads(t *testing.T) {
	both(t, lab.Server{Handler: http.NotFoundHandler()}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		data := random(1 << 20)
		for range 12 {
			resp, err := client.Post(l.URL("a.example.com", "/"), "", bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != 404 {
				t.Fatal(resp.Status)
			}
		}
	})
}

func TestDownloads(t *testing.T) {
	data := random(5<<20 + 3)
	both(t, lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/flush" {
			for b := data; len(b) > 0; {
				n := min(len(b), 100_000)
				_, _ = w.Write(b[:10])
				w.(http.Flusher).Flush()
				_, _ = w.Write(b[10:n])
				b = b[n:]
			}
			return
		}
		_, _ = w.Write(data)
	})}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		var wg sync.WaitGroup
		for range 3 {
			for _, path := range []string{"/", "/flush"} {
				wg.Go(func() {
					resp, err := client.Get(l.URL("a.example.com", path))
					if err != nil {
						t.Error(err)
						return
					}
					defer func() { _ = resp.Body.Close() }()
					got, err := io.ReadAll(resp.Body)
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("%s: %d bytes, %v", path, len(got), err)
					}
				})
			}
		}
		wg.Wait()
	})
}

func TestFullDuplex(t *testing.T) {
	both(t, lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		b := make([]byte, 1)
		for {
			if _, err := io.ReadFull(r.Body, b); err != nil {
				return
			}
			_, _ = w.Write(b)
			w.(http.Flusher).Flush()
		}
	})}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		pr, pw := io.Pipe()
		resp, err := client.Post(l.URL("a.example.com", "/"), "", pr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b := make([]byte, 1)
		for i := range 10 {
			_, _ = pw.Write([]byte{byte(i)})
			if _, err := io.ReadFull(resp.Body, b); err != nil || b[0] != byte(i) {
				t.Fatal(b, err)
			}
		}
		_ = pw.Close()
		if _, err := resp.Body.Read(b); err != io.EOF {
			t.Error(err)
		}
	})
}

func TestTrailersBothWays(t *testing.T) {
	both(t, lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Declared")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-Declared", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Late", "late")
	})}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		req, _ := http.NewRequest("POST", l.URL("a.example.com", "/"), io.MultiReader(strings.NewReader("hello")))
		req.Trailer = http.Header{"X-Sum": {"42"}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "hello" {
			t.Errorf("body %q, %v", body, err)
		}
		if resp.Trailer.Get("X-Declared") != "42" || resp.Trailer.Get("X-Late") != "late" {
			t.Errorf("trailer %v", resp.Trailer)
		}
	})
}

func TestHeadAndStatusesWithoutBody(t *testing.T) {
	both(t, lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/204" {
			w.WriteHeader(204)
			if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("Write after 204: %v", err)
			}
			return
		}
		_, _ = io.WriteString(w, "hello")
	})}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		resp, err := client.Head(l.URL("a.example.com", "/"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.ContentLength != 5 {
			t.Errorf("ContentLength %d", resp.ContentLength)
		}
		if resp, body := get(t, client, l.URL("a.example.com", "/204")); resp.StatusCode != 204 || body != "" {
			t.Errorf("%s with %q", resp.Status, body)
		}
	})
}

func TestInformationalStatuses(t *testing.T) {
	bubble(t, lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(103)
		w.Header().Del("Link")
		_, _ = io.Copy(w, r.Body)
	})}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		var got []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
				got = append(got, strconv.Itoa(code)+header.Get("Link"))
				return nil
			},
		})
		client.Transport.(*http.Transport).ExpectContinueTimeout = 1 << 40
		req, _ := http.NewRequestWithContext(ctx, "POST", l.URL("a.example.com", "/"), strings.NewReader("body"))
		req.Header.Set("Expect", "100-continue")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "body" || resp.Header.Get("Link") != "" {
			t.Errorf("%q, %v, %v", body, err, resp.Header)
		}
		if s := strings.Join(got, " "); s != "103</style.css> 100" {
			t.Errorf("informational statuses %q", s)
		}
	})
}

func TestHandlersThatFail(t *testing.T) {
	bubble(t, lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/panic":
			panic("oops")
		case "/short":
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "short")
		}
	})}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		for i, path := range []string{"/abort", "/panic", "/short"} {
			resp, err := client.Get(l.URL("a.example.com", path))
			if err == nil {
				_ = resp.Body.Close()
				t.Errorf("%s: %s", path, resp.Status)
			}
			synctest.Wait()
			q := l.Record().Requests()[i]
			if q.Err == nil || path == "/panic" != strings.Contains(errText(q.Err), "oops") {
				t.Errorf("%s: recorded %v", path, q.Err)
			}
		}
		if l.Record().Accepted() != 1 {
			t.Error("the connection was not kept")
		}
	})
}

// errText is the error's text and its cause's.
func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error() + " " + errText(errors.Unwrap(err))
}
