package h2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"pgregory.net/rapid"
)

// These make frames that are too large, and ORIGIN frames that are too many,
// cheap to generate.
const (
	smallMaxFrame   = 64
	smallOriginRoom = 100
)

// checkObserver reads in through an observing connection in the given sizes
// and compares the outcome with expect's.
func checkObserver(t rapid.TB, in []byte, reads, bufs []int, together bool, originRoom int) {
	var rec recorder
	src := &fakeConn{in: in, sizes: reads, together: together, err: errCut}
	c, o := observe(src, &rec, smallMaxFrame)
	o.scan.originRoom = originRoom
	out, err := readAll(t, c, bufs)
	if err != errCut {
		t.Fatalf("Read failed with %v, want the connection's error", err)
	}
	wantOut, wantEvents := expect(t, in, src.cuts, originRoom)
	if !bytes.Equal(out, wantOut) {
		t.Fatalf("of\n%x the engine saw\n%x, want\n%x", in, out, wantOut)
	}
	if diff := cmp.Diff(append(wantEvents, "closed cut"), rec.lines); diff != "" {
		t.Fatalf("of\n%x events (-want +got):\n%s", in, diff)
	}
}

// expect says what the engine should see of in, and which events there should
// be, from what http2.Framer makes of it. Of ORIGIN payload originRoom bytes
// are read. A Read has ended at each of cuts.
func expect(t rapid.TB, in []byte, cuts []int, originRoom int) (out []byte, events []string) {
	var rec recorder
	defer func() { events = rec.lines }()
	cuts = append([]int{0}, cuts...)

	src := bytes.NewReader(in)
	fr := http2.NewFramer(io.Discard, src)
	fr.AllowIllegalReads = true
	maxStreams := uint32(1000)
	started, inBlock := false, false
	settled, due, unusable, fenced, exceeded := false, false, false, false, false
	// readsEnd looks at the Reads that have ended within the frame from start to
	// end. The first SETTINGS are reported with the first Read that leaves no
	// ORIGIN frame, and no header, unfinished.
	readsEnd := func(start, end int, isOrigin bool) {
		for ; len(cuts) > 0 && cuts[0] < end; cuts = cuts[1:] {
			inHeader := start < cuts[0] && cuts[0] < start+frameHeaderLen
			inPayload := cuts[0] >= start+frameHeaderLen
			if due && !inHeader && !(inPayload && isOrigin) {
				due = false
				rec.Settings(maxStreams)
			}
		}
	}
	origins := 0 // bytes of ORIGIN payload so far
	for {
		start := len(in) - src.Len()
		fh, err := fr.ReadFrameHeader()
		if err != nil { // at the end, or within a header
			readsEnd(start, len(in)+1, false)
			return append(out, in[start:]...), nil
		}
		whole := int(fh.Length) <= src.Len()
		legal := fh.Length <= smallMaxFrame &&
			(started || fh.Type == http2.FrameSettings) &&
			(!inBlock || fh.Type == http2.FrameContinuation)
		if legal {
			switch fh.Type {
			case http2.FrameSettings:
				started = true
			case http2.FrameHeaders, http2.FramePushPromise, http2.FrameContinuation:
				inBlock = fh.Flags&http2.FlagHeadersEndHeaders == 0
			}
		}
		isOrigin := fh.Type == 0xc && legal
		isRead := isOrigin && fh.StreamID == 0 && fh.Flags&0xf == 0 && !exceeded
		readsEnd(start, start+frameHeaderLen+int(fh.Length), isRead)
		if !whole {
			if !isOrigin {
				out = append(out, in[start:]...)
			}
			return out, nil
		}
		f, err := fr.ReadFrameForHeader(fh)
		if !isOrigin {
			out = append(out, in[start:len(in)-src.Len()]...)
		}
		if err != nil || !legal {
			continue
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				break
			}
			next := maxStreams
			if f.ForeachSetting(func(s http2.Setting) error {
				if s.ID == http2.SettingMaxConcurrentStreams {
					next = s.Val
				}
				return s.Valid() // the engine checks it, the Framer does not
			}) != nil {
				break
			}
			changed := next != maxStreams
			maxStreams = next
			switch {
			case !settled:
				settled, due = true, true
			case changed && !due:
				rec.Settings(maxStreams)
			}
		case *http2.GoAwayFrame:
			rec.GoAway(f.LastStreamID, uint32(f.ErrCode))
		case *http2.RSTStreamFrame:
			if f.ErrCode == http2.ErrCodeProtocol && !unusable {
				unusable = true
				rec.Unusable()
			}
		case *http2.UnknownFrame:
			if !isRead {
				break
			}
			var texts []string
			dropped := 0
			for at := 0; at+2 <= len(f.Payload()); {
				n := int(binary.BigEndian.Uint16(f.Payload()[at:]))
				if at += 2; at+n > len(f.Payload()) {
					break
				}
				if origins+at+n <= originRoom {
					texts = append(texts, string(f.Payload()[at:at+n]))
				} else {
					dropped++
				}
				at += n
			}
			origins += len(f.Payload())
			exceeded = origins > originRoom
			if !fenced || len(texts) > 0 || dropped > 0 {
				fenced = true
				rec.Origin(texts, dropped)
			}
		}
	}
}

// drawFrame draws a frame, or an ORIGIN frame a few times over: mostly
// well-formed, sometimes of a wrong length or on a wrong stream, and sometimes
// larger than the engine accepts.
func drawFrame(t *rapid.T) []byte {
	typ := http2.FrameType(rapid.SampledFrom([]int{
		0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xa, 0xc, 0xc, 0xc, 0xc, 0xd, 0x10, 0xff,
	}).Draw(t, "type"))
	streamID := rapid.SampledFrom([]uint32{0, 0, 0, 1, 3, 1 << 31}).Draw(t, "stream")
	flags := rapid.SampledFrom([]http2.Flags{0, 0, 0x1, 0x2, 0x4, 0x4, 0x8, 0x10, 0x20, 0xff}).Draw(t, "flags")
	bytesUpTo := func(n int) []byte { return rapid.SliceOfN(rapid.Byte(), 0, n).Draw(t, "payload") }

	if rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
		return frame(typ, flags, streamID, bytesUpTo(smallMaxFrame+20)...)
	}
	switch typ {
	case http2.FrameSettings:
		pairs := rapid.SliceOfN(rapid.SampledFrom([]uint32{1, 3, 4}), 0, 4).Draw(t, "ids")
		var values []uint32
		for _, id := range pairs {
			values = append(values, id, rapid.Uint32().Draw(t, "value"))
		}
		return settings(values...)
	case http2.FrameGoAway:
		return frame(typ, flags, 0, append(words(rapid.Uint32().Draw(t, "last"), rapid.Uint32().Draw(t, "code")), bytesUpTo(20)...)...)
	case http2.FrameRSTStream:
		return frame(typ, flags, 1, words(rapid.Uint32Range(0, 3).Draw(t, "code"))...)
	case http2.FrameHeaders, http2.FramePushPromise:
		// END_HEADERS more often than not, or else little is legal after it.
		if rapid.IntRange(0, 3).Draw(t, "run") > 0 {
			flags |= http2.FlagHeadersEndHeaders
		}
		return frame(typ, flags, 1, bytesUpTo(20)...)
	case frameOrigin:
		if rapid.IntRange(0, 20).Draw(t, "many") == 0 {
			return frame(typ, 0, 0, entries(make([]string, smallMaxFrame/2)...)...)
		}
		texts := rapid.SliceOfN(rapid.StringN(0, 6, 12), 0, 4).Draw(t, "entries")
		payload := entries(texts...)
		if rapid.IntRange(0, 4).Draw(t, "overrun") == 0 {
			payload = append(payload, bytesUpTo(3)...)
		}
		flags &^= rapid.SampledFrom([]http2.Flags{0, 0xf}).Draw(t, "clear")
		streamID &= rapid.SampledFrom([]uint32{0, 1<<32 - 1}).Draw(t, "clear")
		times := rapid.SampledFrom([]int{1, 1, 1, 2, 8}).Draw(t, "times")
		return bytes.Repeat(frame(typ, flags, streamID, payload...), times)
	}
	return frame(typ, flags, streamID, bytesUpTo(30)...)
}

func TestO5_ObserverAgreesWithFramer(t *testing.T) {
	for _, originRoom := range []int{0, 10, 30, smallOriginRoom, maxOriginBytes} {
		t.Run(fmt.Sprintf("room for %d bytes", originRoom), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				var in []byte
				if rapid.IntRange(0, 9).Draw(t, "preface") > 0 {
					in = settings()
				}
				for range rapid.IntRange(0, 40).Draw(t, "frames") {
					in = append(in, drawFrame(t)...)
				}
				if rapid.Bool().Draw(t, "truncated") {
					in = in[:rapid.IntRange(0, len(in)).Draw(t, "length")]
				}
				size := rapid.OneOf(rapid.IntRange(1, 12), rapid.IntRange(1, 200))
				checkObserver(t, in,
					rapid.SliceOfN(size, 1, 8).Draw(t, "reads"),
					rapid.SliceOfN(size, 1, 8).Draw(t, "buffers"),
					rapid.Bool().Draw(t, "together"), originRoom)
			})
		})
	}
}

// FuzzObserver has the property of TestO5_ObserverAgreesWithFramer for any
// bytes: in is what the server sends, sizes are those of the reads and of the
// buffers in turn.
func FuzzObserver(f *testing.F) {
	f.Fuzz(func(t *testing.T, in, sizes []byte) {
		var reads, bufs []int
		for i, n := range sizes {
			if i%2 == 0 {
				reads = append(reads, int(n)+1)
			} else {
				bufs = append(bufs, int(n)+1)
			}
		}
		if len(bufs) == 0 {
			bufs = []int{4096}
		}
		checkObserver(t, in, reads, bufs, len(sizes)%3 == 0, smallOriginRoom)
	})
}
