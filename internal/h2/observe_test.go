package h2

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
)

var errCut = errors.New("cut")

// recorder writes down the events that it receives, one line each.
type recorder struct {
	lines []string
}

func (r *recorder) add(format string, args ...any) {
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (r *recorder) Settings(n uint32)              { r.add("settings %d", n) }
func (r *recorder) GoAway(last, code uint32)       { r.add("goaway %d %d", last, code) }
func (r *recorder) Unusable()                      { r.add("unusable") }
func (r *recorder) Origin(entries []string, d int) { r.add("origin %q dropped %d", entries, d) }
func (r *recorder) Closed(err error)               { r.add("closed %v", err) }

// fakeConn receives in, in reads of at most the given sizes, and then err. If
// together is set the last bytes come with err.
type fakeConn struct {
	net.Conn
	in       []byte
	sizes    []int // used in turn; none: no bound
	together bool
	err      error

	reads, closed int
	cuts          []int // the bytes read by the end of each Read
}

func (c *fakeConn) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, c.err
	}
	if len(c.sizes) > 0 {
		p = p[:min(len(p), c.sizes[c.reads%len(c.sizes)])]
	}
	c.reads++
	n := copy(p, c.in)
	c.in = c.in[n:]
	if len(c.cuts) > 0 {
		c.cuts = append(c.cuts, c.cuts[len(c.cuts)-1]+n)
	} else {
		c.cuts = append(c.cuts, n)
	}
	if len(c.in) == 0 && c.together {
		return n, c.err
	}
	return n, nil
}

func (c *fakeConn) Close() error {
	c.closed++
	return nil
}

// readAll reads c into buffers of the given sizes, in turn, until it fails.
func readAll(t interface{ Fatalf(string, ...any) }, c io.Reader, bufs []int) ([]byte, error) {
	var out []byte
	for i := 0; ; i++ {
		p := make([]byte, bufs[i%len(bufs)])
		n, err := c.Read(p)
		out = append(out, p[:n]...)
		if err != nil {
			return out, err
		}
		if n == 0 {
			t.Fatalf("Read returned 0, nil")
		}
	}
}

// frame returns a frame as it is sent.
func frame(typ http2.FrameType, flags http2.Flags, streamID uint32, payload ...byte) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), byte(typ), byte(flags)}
	b = binary.BigEndian.AppendUint32(b, streamID)
	return append(b, payload...)
}

// settings returns a SETTINGS frame of pairs of identifier and value.
func settings(pairs ...uint32) []byte {
	var p []byte
	for i := 0; i < len(pairs); i += 2 {
		p = binary.BigEndian.AppendUint16(p, uint16(pairs[i]))
		p = binary.BigEndian.AppendUint32(p, pairs[i+1])
	}
	return frame(http2.FrameSettings, 0, 0, p...)
}

// words returns the values in network byte order.
func words(vv ...uint32) []byte {
	var p []byte
	for _, v := range vv {
		p = binary.BigEndian.AppendUint32(p, v)
	}
	return p
}

// entries returns the payload of an ORIGIN frame.
func entries(texts ...string) []byte {
	var p []byte
	for _, s := range texts {
		p = binary.BigEndian.AppendUint16(p, uint16(len(s)))
		p = append(p, s...)
	}
	return p
}

func origin(texts ...string) []byte {
	return frame(frameOrigin, 0, 0, entries(texts...)...)
}

func join(frames ...[]byte) []byte {
	return bytes.Join(frames, nil)
}

const testMaxFrame = 1 << 14

// observed reads in through an observing connection. The first frame arrives
// alone.
func observed(t *testing.T, in []byte) (out []byte, events []string) {
	t.Helper()
	var rec recorder
	first := frameHeaderLen + int(in[0])<<16 + int(in[1])<<8 + int(in[2])
	c, _ := observe(&fakeConn{in: in, sizes: []int{first, 1 << 20}, err: errCut}, &rec, testMaxFrame)
	out, err := readAll(t, c, []int{4096})
	if err != errCut {
		t.Errorf("Read failed with %v, want the connection's error", err)
	}
	return out, rec.lines
}

func wantObserved(t *testing.T, in, wantOut []byte, wantEvents ...string) {
	t.Helper()
	out, events := observed(t, in)
	if !bytes.Equal(out, wantOut) {
		t.Errorf("the engine saw\n%x, want\n%x", out, wantOut)
	}
	if diff := cmp.Diff(append(wantEvents, "closed cut"), events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestO5_WithheldHeaderBytesComeBeforeTheError(t *testing.T) {
	for _, together := range []bool{false, true} {
		for n := range frameHeaderLen {
			in := join(settings(), origin("https://a.example")[:n])
			for size := 1; size < 2*frameHeaderLen; size++ {
				c, _ := observe(&fakeConn{in: in, err: io.EOF, together: together}, new(recorder), testMaxFrame)
				out, err := readAll(t, c, []int{size})
				if !bytes.Equal(out, in) || err != io.EOF {
					t.Errorf("%d bytes, buffer of %d: read %x, %v; want %x, EOF", n, size, out, err, in)
				}
			}
		}
	}
}

func TestO5_EverySplit(t *testing.T) {
	kept := join(settings(3, 7), frame(http2.FrameData, 0, 1, make([]byte, 20)...))
	last := frame(http2.FrameGoAway, 0, 0, words(1, 0)...)
	in := join(settings(3, 7), origin("https://a.example", "https://b.example"),
		frame(http2.FrameData, 0, 1, make([]byte, 20)...), origin(""), last)
	want := []string{`origin ["https://a.example" "https://b.example"] dropped 0`, `origin [""] dropped 0`, "goaway 1 0", "closed cut"}
	for first := 1; first < len(in); first++ {
		for size := 1; size < 24; size++ {
			var rec recorder
			c, _ := observe(&fakeConn{in: in, sizes: []int{first, len(in)}, err: errCut}, &rec, testMaxFrame)
			out, _ := readAll(t, c, []int{size})
			if !bytes.Equal(out, join(kept, last)) {
				t.Fatalf("split at %d, buffer of %d: read %x", first, size, out)
			}
			// When SETTINGS are reported depends on the split: see
			// TestC8_FirstSettingsAreReportedAfterORIGIN.
			at := slices.Index(rec.lines, "settings 7")
			if at < 0 {
				t.Fatalf("split at %d, buffer of %d: SETTINGS are not reported", first, size)
			}
			if diff := cmp.Diff(want, slices.Delete(rec.lines, at, at+1)); diff != "" {
				t.Fatalf("split at %d, buffer of %d: events (-want +got):\n%s", first, size, diff)
			}
		}
	}
}

func TestO5_NoAllocation(t *testing.T) {
	frames := join(frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, make([]byte, 30)...),
		frame(http2.FrameData, http2.FlagDataEndStream, 1, make([]byte, 10_000)...),
		frame(http2.FramePing, 0, 0, make([]byte, 8)...))
	c, _ := observe(&fakeConn{in: join(settings(), bytes.Repeat(frames, 1000))}, new(recorder), testMaxFrame)
	p := make([]byte, 4096)
	c.Read(p) // what the event of the SETTINGS frame allocates
	if n := testing.AllocsPerRun(1000, func() {
		if n, err := c.Read(p); n == 0 || err != nil {
			t.Fatalf("Read: %d, %v", n, err)
		}
	}); n != 0 {
		t.Errorf("Read allocates %v times", n)
	}
}

func TestReadIntoNothing(t *testing.T) {
	c, _ := observe(&fakeConn{in: settings(), err: io.EOF}, new(recorder), testMaxFrame)
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("Read(nil) = %d, %v", n, err)
	}
}

// TestTheLastBytesComeBeforeTheEnd is the case of a server that ends the
// connection right behind an answer: one Read has both.
func TestTheLastBytesComeBeforeTheEnd(t *testing.T) {
	var rec recorder
	in := join(settings(), frame(http2.FrameData, http2.FlagDataEndStream, 1, 'x'))
	nc, _ := observe(&fakeConn{in: in, together: true, err: io.EOF}, &rec, 1<<14)
	buf := make([]byte, 1<<10)
	n, err := nc.Read(buf)
	if !bytes.Equal(buf[:n], in) || err != nil {
		t.Fatalf("read %x, %v, want all bytes and no error", buf[:n], err)
	}
	if diff := cmp.Diff([]string{"settings 1000"}, rec.lines); diff != "" {
		t.Errorf("with the bytes (-want +got):\n%s", diff)
	}
	if n, err := nc.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("read %d, %v, want the end", n, err)
	}
	if diff := cmp.Diff([]string{"settings 1000", "closed EOF"}, rec.lines); diff != "" {
		t.Errorf("with the end (-want +got):\n%s", diff)
	}
}

func TestSettingsThatTheEngineRejectsAreNotReported(t *testing.T) {
	for _, bad := range [][]uint32{
		{uint32(http2.SettingInitialWindowSize), 1 << 31},
		{uint32(http2.SettingMaxFrameSize), 1},
		{uint32(http2.SettingEnablePush), 2},
	} {
		in := settings(append([]uint32{uint32(http2.SettingMaxConcurrentStreams), 7}, bad...)...)
		wantObserved(t, in, in)
	}
}

func TestReadErrorSticks(t *testing.T) {
	var rec recorder
	c, _ := observe(&fakeConn{err: errCut}, &rec, testMaxFrame)
	for range 3 {
		if _, err := c.Read(make([]byte, 10)); err != errCut {
			t.Errorf("Read: %v", err)
		}
	}
	if diff := cmp.Diff([]string{"closed cut"}, rec.lines); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// idlingConn returns nothing from every other Read.
type idlingConn struct {
	fakeConn
	n int
}

func (c *idlingConn) Read(p []byte) (int, error) {
	if c.n++; c.n%2 == 1 {
		return 0, nil
	}
	return c.fakeConn.Read(p)
}

// io.Reader: "callers should treat a return of 0 and nil as indicating that
// nothing happened".
func TestReadOfNothingIsNotPassedOn(t *testing.T) {
	in := join(settings(), origin("https://a.example"), settings(3, 7))
	for _, size := range []int{1, 4096} {
		c, _ := observe(&idlingConn{fakeConn: fakeConn{in: in, sizes: []int{5}, err: errCut}}, new(recorder), testMaxFrame)
		out, err := readAll(t, c, []int{size})
		if !bytes.Equal(out, join(settings(), settings(3, 7))) || err != errCut {
			t.Errorf("buffer of %d: read %x, %v", size, out, err)
		}
	}
}

func TestNothingFollowsClosed(t *testing.T) {
	var rec recorder
	src := &fakeConn{in: join(settings(), origin(), frame(http2.FrameGoAway, 0, 0, words(0, 0)...)), err: io.EOF}
	c, _ := observe(src, &rec, testMaxFrame)
	c.Close()
	c.Close()
	if _, err := readAll(t, c, []int{4096}); err != io.EOF {
		t.Errorf("Read: %v", err)
	}
	if diff := cmp.Diff([]string{"closed " + net.ErrClosed.Error()}, rec.lines); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if src.closed != 2 {
		t.Errorf("the connection was closed %d times, want each Close passed on", src.closed)
	}
}

type fakeTLSConn struct{ fakeConn }

func (*fakeTLSConn) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{ServerName: "a.example"}
}

func TestConnectionStateIsThatOfTheConnection(t *testing.T) {
	type stater interface{ ConnectionState() tls.ConnectionState }

	c, _ := observe(&fakeTLSConn{}, new(recorder), testMaxFrame)
	if s, ok := c.(stater); !ok || s.ConnectionState().ServerName != "a.example" {
		t.Errorf("%T hides the ConnectionState of a connection that has one", c)
	}
	c, _ = observe(tls.Client(&fakeConn{}, &tls.Config{ServerName: "a.example"}), new(recorder), testMaxFrame)
	if _, ok := c.(stater); !ok {
		t.Errorf("%T hides the ConnectionState of a *tls.Conn", c)
	}
	c, _ = observe(&fakeConn{}, new(recorder), testMaxFrame)
	if _, ok := c.(stater); ok {
		t.Errorf("%T claims a ConnectionState for a connection without one", c)
	}
}
