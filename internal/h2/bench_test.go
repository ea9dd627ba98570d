package h2

import (
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
)

// loopConn receives in again and again.
type loopConn struct {
	net.Conn
	in  []byte
	off int
}

func (c *loopConn) Read(p []byte) (int, error) {
	n := copy(p, c.in[c.off:])
	c.off = (c.off + n) % len(c.in)
	return n, nil
}

// BenchmarkObserverRead reads through a 4 KiB buffer as the engine does: the
// difference between observed and bare is what watching costs.
func BenchmarkObserverRead(b *testing.B) {
	small := join(
		frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, make([]byte, 40)...),
		frame(http2.FrameData, http2.FlagDataEndStream, 1, make([]byte, 100)...),
		frame(http2.FrameWindowUpdate, 0, 0, words(100)...))
	streams := []struct {
		name string
		in   []byte
	}{
		{"bulk", frame(http2.FrameData, 0, 1, make([]byte, 16<<10)...)},
		{"small", small},
	}
	for _, s := range streams {
		b.Run(s.name+"/bare", func(b *testing.B) {
			benchmarkRead(b, &loopConn{in: s.in}, len(s.in))
		})
		b.Run(s.name+"/observed", func(b *testing.B) {
			c, o := observe(&loopConn{in: s.in}, new(recorder), testMaxFrame)
			o.scan.started = true
			benchmarkRead(b, c, len(s.in))
		})
	}
}

// benchmarkRead reads n bytes an iteration, which are the frames of in once.
func benchmarkRead(b *testing.B, r io.Reader, n int) {
	p := make([]byte, 4096)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		for left := n; left > 0; {
			m, err := r.Read(p[:min(left, len(p))])
			if err != nil {
				b.Fatal(err)
			}
			left -= m
		}
	}
}
