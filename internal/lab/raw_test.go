package lab_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// raw is a client that writes and reads single frames.
type raw struct {
	t    *testing.T
	conn *tls.Conn
	fr   *http2.Framer
	henc *hpack.Encoder
	hbuf bytes.Buffer
}

func dialRaw(t *testing.T, l *lab.Lab) *raw {
	t.Helper()
	nc, err := l.DialPipe("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	config := l.TLSConfig()
	config.ServerName, config.NextProtos = "a.example.com", []string{"h2"}
	r := &raw{t: t, conn: tls.Client(nc, config)}
	t.Cleanup(func() { _ = nc.Close() })
	r.fr = http2.NewFramer(r.conn, r.conn)
	r.henc = hpack.NewEncoder(&r.hbuf)
	r.must(io.WriteString(r.conn, http2.ClientPreface))
	return r
}

func (r *raw) must(_ any, err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) headers(stream uint32, path string, last bool) {
	r.t.Helper()
	r.hbuf.Reset()
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a.example.com"}, {":path", path}} {
		_ = r.henc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	r.must(nil, r.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: r.hbuf.Bytes(), EndStream: last, EndHeaders: true,
	}))
}

// next reads frames until one is of type T.
func next[T http2.Frame](r *raw) T {
	r.t.Helper()
	for {
		f, err := r.fr.ReadFrame()
		if err != nil {
			r.t.Fatal(err)
		}
		if f, ok := f.(T); ok {
			return f
		}
	}
}

func TestOriginFrameFollowsSettings(t *testing.T) {
	for name, tc := range map[string]struct {
		origins []string
		want    string
	}{
		"two":   {[]string{"https://b.example.com", "https://c.test:8443"}, "\x00\x15https://b.example.com\x00\x13https://c.test:8443"},
		"empty": {[]string{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, lab.Server{Origins: tc.origins}, func(t *testing.T, l *lab.Lab, _ *http.Client) {
				r := dialRaw(t, l)
				if f, err := r.fr.ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings {
					t.Fatal(f, err)
				}
				f, err := r.fr.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				origin, ok := f.(*http2.UnknownFrame)
				if !ok || origin.Type != 0xc || origin.Flags != 0 || origin.StreamID != 0 || string(origin.Payload()) != tc.want {
					t.Errorf("%v", f)
				}
			})
		})
	}
}

func TestOriginsThatExceedAFrameAreSplit(t *testing.T) {
	bubble(t, lab.Server{}, func(t *testing.T, l *lab.Lab, _ *http.Client) {
		r := dialRaw(t, l)
		next[*http2.SettingsFrame](r)
		r.must(nil, r.fr.WriteSettings())
		next[*http2.SettingsFrame](r)
		origins := make([]string, 1000)
		for i := range origins {
			origins[i] = "https://a-somewhat-long-name.example.com"
		}
		r.must(nil, l.Conns()[0].Origin(origins...))
		for total := 0; total < 1000*42; {
			f := next[*http2.UnknownFrame](r)
			if f.Length > 16384 || f.Length%42 != 0 {
				t.Fatal(f)
			}
			total += int(f.Length)
		}
	})
}

func TestStreamLimitAndOvershoot(t *testing.T) {
	release := make(chan struct{})
	bubble(t, lab.Server{MaxStreams: 2, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	})}, func(t *testing.T, l *lab.Lab, _ *http.Client) {
		r := dialRaw(t, l)
		r.must(nil, r.fr.WriteSettings())
		r.headers(1, "/wait", true)
		r.headers(3, "/wait", true)
		r.headers(5, "/wait", true) // too many, but the limit was not acknowledged
		if f := next[*http2.RSTStreamFrame](r); f.StreamID != 5 || f.ErrCode != http2.ErrCodeRefusedStream {
			t.Errorf("%v", f)
		}
		r.must(nil, r.fr.WriteSettingsAck())
		r.headers(7, "/wait", true)
		if f := next[*http2.RSTStreamFrame](r); f.StreamID != 7 || f.ErrCode != http2.ErrCodeRefusedStream {
			t.Errorf("%v", f)
		}
		c := l.Record().Conns()[0]
		if c.MaxConcurrent != 2 || c.Refused != 2 || c.Overshoot != 1 || c.Requests != 2 {
			t.Errorf("recorded %+v", c)
		}

		// A higher limit may be used before its acknowledgement.
		r.must(nil, l.Conns()[0].Settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 3}))
		r.headers(9, "/", true)
		if f := next[*http2.HeadersFrame](r); f.StreamID != 9 {
			t.Errorf("%v", f)
		}
		// A lower one holds when acknowledged; streams above it stay.
		r.must(nil, r.fr.WriteSettingsAck())
		r.must(nil, l.Conns()[0].Settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1}))
		r.must(nil, r.fr.WriteSettingsAck())
		r.headers(11, "/", true)
		next[*http2.RSTStreamFrame](r)
		c = l.Record().Conns()[0]
		if c.MaxConcurrent != 3 || c.Refused != 3 || c.Overshoot != 2 || c.Requests != 3 {
			t.Errorf("recorded %+v", c)
		}
		// A reset frees a stream.
		r.must(nil, r.fr.WriteRSTStream(1, http2.ErrCodeCancel))
		r.must(nil, r.fr.WriteRSTStream(3, http2.ErrCodeCancel))
		r.headers(13, "/", true)
		if f := next[*http2.HeadersFrame](r); f.StreamID != 13 {
			t.Errorf("%v", f)
		}
		if c := l.Record().Conns()[0]; c.Resets != 2 {
			t.Errorf("%d resets recorded", c.Resets)
		}
	})
}

func TestIgnoredAfterGoAway(t *testing.T) {
	bubble(t, lab.Server{}, func(t *testing.T, l *lab.Lab, _ *http.Client) {
		r := dialRaw(t, l)
		r.must(nil, r.fr.WriteSettings())
		next[*http2.SettingsFrame](r)
		r.must(nil, l.Conns()[0].GoAway(0, http2.ErrCodeNo))
		if f := next[*http2.GoAwayFrame](r); f.LastStreamID != 0 || f.ErrCode != http2.ErrCodeNo {
			t.Errorf("%v", f)
		}
		r.headers(1, "/", true)
		r.must(nil, r.fr.WritePing(false, [8]byte{1}))
		if f := next[*http2.PingFrame](r); !f.IsAck() || f.Data[0] != 1 {
			t.Errorf("%v", f)
		}
		if c := l.Record().Conns()[0]; c.Ignored != 1 || c.Requests != 0 || c.Pings != 1 {
			t.Errorf("recorded %+v", c)
		}
	})
}

func TestScriptedFrames(t *testing.T) {
	bubble(t, lab.Server{
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
	}, func(t *testing.T, l *lab.Lab, _ *http.Client) {
		r := dialRaw(t, l)
		r.must(nil, r.fr.WriteSettings())
		next[*http2.SettingsFrame](r)
		conn := l.Conns()[0]
		r.must(nil, conn.Ping())
		next[*http2.PingFrame](r)
		r.must(nil, conn.Frame(0xc, 0x1, 0, []byte("x")))
		if f := next[*http2.UnknownFrame](r); f.Flags != 1 || string(f.Payload()) != "x" {
			t.Errorf("%v", f)
		}
		r.headers(1, "/", true)
		synctest.Wait()
		r.must(nil, conn.Reset(1, http2.ErrCodeCancel))
		if f := next[*http2.RSTStreamFrame](r); f.StreamID != 1 || f.ErrCode != http2.ErrCodeCancel {
			t.Errorf("%v", f)
		}
		r.must(nil, conn.Close())
		if _, err := r.fr.ReadFrame(); err != io.EOF {
			t.Errorf("%v, want the end", err)
		}
	})
}

func TestProtocolErrorsEndTheConnection(t *testing.T) {
	for name, script := range map[string]struct {
		play func(*raw)
		want http2.ErrCode
	}{
		"no settings":  {func(r *raw) { r.headers(1, "/", true) }, http2.ErrCodeProtocol},
		"even stream":  {func(r *raw) { r.must(nil, r.fr.WriteSettings()); r.headers(2, "/", true) }, http2.ErrCodeProtocol},
		"data on idle": {func(r *raw) { r.must(nil, r.fr.WriteSettings()); r.must(nil, r.fr.WriteData(1, true, nil)) }, http2.ErrCodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, lab.Server{}, func(t *testing.T, l *lab.Lab, _ *http.Client) {
				r := dialRaw(t, l)
				script.play(r)
				if f := next[*http2.GoAwayFrame](r); f.ErrCode != script.want {
					t.Errorf("%v", f)
				}
			})
		})
	}
}

func TestFlowControlIsObeyed(t *testing.T) {
	data := random(100)
	bubble(t, lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(data)
	})}, func(t *testing.T, l *lab.Lab, _ *http.Client) {
		r := dialRaw(t, l)
		r.must(nil, r.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}))
		r.headers(1, "/", true)
		if f := next[*http2.HeadersFrame](r); f.StreamEnded() {
			t.Fatal("ended with the header")
		}
		var got []byte
		for len(got) < len(data) {
			f := next[*http2.DataFrame](r)
			if len(f.Data()) != 10 || f.StreamEnded() != (len(got) == 90) {
				t.Fatalf("%v after %d bytes", f, len(got))
			}
			got = append(got, f.Data()...)
			synctest.Wait()
			r.must(nil, r.fr.WriteWindowUpdate(1, 10))
		}
		if !bytes.Equal(got, data) {
			t.Error("other bytes")
		}
	})
}

func TestLongHeadersAreContinued(t *testing.T) {
	bubble(t, lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Long", r.Header.Get("X-Long"))
	})}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		long := string(bytes.Repeat([]byte("~%"), 40_000))
		req, _ := http.NewRequest("GET", l.URL("a.example.com", "/"), nil)
		req.Header.Set("X-Long", long)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.Header.Get("X-Long") != long {
			t.Error("another header")
		}
	})
}
