package h2_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/h2coalesce/h2coalesce/internal/h2"
)

// The benchmarks do the same on a bare connection and on an observed one, so
// that benchstat -col /conn prints the ratio.

// BenchmarkObserverRead reads what costs next to nothing to receive: the
// difference is what watching costs.
func BenchmarkObserverRead(b *testing.B) {
	streams := []struct {
		name string
		in   []byte
	}{
		{"stream=bulk", dataFrames(1)},
		{"stream=small", responseFrames()},
	}
	for _, s := range streams {
		compareConns(b, s.name, func(b *testing.B, wrap func(net.Conn) net.Conn) {
			c := wrap(newLoopConn(s.in))
			p := make([]byte, 4096)
			c.Read(p[:len(emptySettings)])
			b.SetBytes(int64(len(s.in)))
			b.ReportAllocs()
			for b.Loop() {
				readN(b, c, len(s.in), p)
			}
		})
	}
}

// BenchmarkDownload receives DATA frames over TLS, as the engine does.
func BenchmarkDownload(b *testing.B) {
	const size = 1 << 20
	compareConns(b, "", func(b *testing.B, wrap func(net.Conn) net.Conn) {
		client, server := tlsPipe(b)
		served := make(chan struct{})
		go func() { // until the connection is closed
			defer close(served)
			frames := dataFrames(16)
			_, err := server.Write(emptySettings)
			for err == nil {
				_, err = server.Write(frames)
			}
		}()
		fr := http2.NewFramer(io.Discard, bufio.NewReader(wrap(client)))
		fr.SetReuseFrames()
		receive := func(n int) {
			for n > 0 {
				f, err := fr.ReadFrame()
				if err != nil {
					b.Fatal(err)
				}
				n -= int(f.Header().Length)
			}
		}
		receive(4 << 20) // until crypto/tls sends its largest records
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			receive(size)
		}
		client.NetConn().Close()
		<-served
	})
}

// BenchmarkRequest sends requests and receives small responses over TLS. What
// the observer has a part in is lost in their noise, so it is measured by
// itself too: observer-ns/op is what watching one response's bytes takes, and
// observer-% how much of the request that is.
func BenchmarkRequest(b *testing.B) {
	for _, name := range []string{"conn=bare", "conn=observed"} {
		b.Run(name, func(b *testing.B) {
			client, server := tlsPipe(b)
			served := make(chan struct{})
			go func() {
				defer close(served)
				serve(server)
			}()
			e, err := h2.NewEngine(new(http.Transport))
			if err != nil {
				b.Fatal(err)
			}
			var rt http.RoundTripper
			if name == "conn=bare" {
				rt, err = e.NewBareConn(client)
			} else {
				rt, err = e.NewConn(client, new(eventLog))
			}
			if err != nil {
				b.Fatal(err)
			}
			req, err := http.NewRequest(http.MethodGet, "https://a.example/", nil)
			if err != nil {
				b.Fatal(err)
			}
			fetch := func() {
				res, err := rt.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			fetch()
			b.ReportAllocs()
			for b.Loop() {
				fetch()
			}
			if name == "conn=observed" {
				cost := observerCost(b, responseFrames())
				b.ReportMetric(cost, "observer-ns/op")
				b.ReportMetric(100*cost*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "observer-%")
			}
			client.NetConn().Close()
			<-served
		})
	}
}

// observerCost returns how many nanoseconds it takes to watch in.
func observerCost(b *testing.B, in []byte) float64 {
	const rounds, reads = 21, 20_000
	median := func(c net.Conn) float64 {
		p := make([]byte, 4096)
		c.Read(p[:len(emptySettings)])
		times := make([]float64, rounds)
		for i := range times {
			start := time.Now()
			for range reads {
				readN(b, c, len(in), p)
			}
			times[i] = float64(time.Since(start).Nanoseconds()) / reads
		}
		slices.Sort(times)
		return times[rounds/2]
	}
	return median(h2.Observe(newLoopConn(in), new(eventLog))) - median(newLoopConn(in))
}

// compareConns runs f as two benchmarks called name.
func compareConns(b *testing.B, name string, f func(b *testing.B, wrap func(net.Conn) net.Conn)) {
	if name != "" {
		name += "/"
	}
	b.Run(name+"conn=bare", func(b *testing.B) {
		f(b, func(c net.Conn) net.Conn { return c })
	})
	b.Run(name+"conn=observed", func(b *testing.B) {
		f(b, func(c net.Conn) net.Conn { return h2.Observe(c, new(eventLog)) })
	})
}

// readN reads n bytes through p.
func readN(b *testing.B, r io.Reader, n int, p []byte) {
	for n > 0 {
		m, err := r.Read(p[:min(n, len(p))])
		if err != nil {
			b.Fatal(err)
		}
		n -= m
	}
}

// loopConn receives SETTINGS and then the same again and again.
type loopConn struct {
	net.Conn
	in  []byte
	off int
}

func newLoopConn(in []byte) *loopConn {
	return &loopConn{in: slices.Concat(emptySettings, in)}
}

func (c *loopConn) Read(p []byte) (int, error) {
	n := copy(p, c.in[c.off:])
	if c.off += n; c.off == len(c.in) {
		c.off = len(emptySettings)
	}
	return n, nil
}

var emptySettings = []byte{0, 0, 0, byte(http2.FrameSettings), 0, 0, 0, 0, 0}

// dataFrames returns n DATA frames of 16 KiB.
func dataFrames(n int) []byte {
	var buf bytes.Buffer
	fr := http2.NewFramer(&buf, nil)
	for range n {
		fr.WriteData(1, false, make([]byte, 16<<10))
	}
	return buf.Bytes()
}

const bodyLen = 100

// responseFrames returns a small response on stream 1.
func responseFrames() []byte {
	var buf, block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":status", Value: "200"},
		{Name: "content-type", Value: "text/plain; charset=utf-8"},
		{Name: "content-length", Value: strconv.Itoa(bodyLen)},
		{Name: "date", Value: "Sat, 22 Nov 2025 13:09:31 GMT"},
	} {
		f.Sensitive = true // not indexed: every response is the same
		enc.WriteField(f)
	}
	fr := http2.NewFramer(&buf, nil)
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	fr.WriteData(1, true, make([]byte, bodyLen))
	return buf.Bytes()
}

// serve answers the requests on c until it is closed.
func serve(c net.Conn) {
	br := bufio.NewReader(c)
	if _, err := br.Discard(len(http2.ClientPreface)); err != nil {
		return
	}
	fr := http2.NewFramer(c, br)
	fr.SetReuseFrames()
	fr.WriteSettings()
	response := responseFrames()
	data := response[len(response)-9-bodyLen:] // its DATA frame
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				fr.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			binary.BigEndian.PutUint32(response[5:], f.StreamID)
			binary.BigEndian.PutUint32(data[5:], f.StreamID)
			c.Write(response)
		}
	}
}

// tlsPipe returns the two ends of a TLS connection over loopback.
func tlsPipe(b *testing.B) (client, server *tls.Conn) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan *tls.Conn)
	cert := selfSigned(b)
	go func() {
		defer close(accepted)
		c, err := l.Accept()
		if err != nil {
			return
		}
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
		if s.Handshake() == nil {
			accepted <- s
		}
	}()
	client, err = tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		b.Fatal(err)
	}
	server, ok := <-accepted
	if !ok {
		b.Fatal("the server's handshake failed")
	}
	b.Cleanup(func() {
		client.NetConn().Close()
		server.NetConn().Close()
	})
	return client, server
}
