package h2

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
)

func TestO1_CutOut(t *testing.T) {
	data := frame(http2.FrameData, 0, 1, []byte("body")...)
	wantObserved(t,
		join(settings(), origin("https://a.example"), data, origin("https://b.example:8443")),
		join(settings(), data),
		"settings 1000",
		`origin ["https://a.example"] dropped 0`,
		`origin ["https://b.example:8443"] dropped 0`)
}

func TestO1_FlagsIgnored(t *testing.T) {
	for bit := range 8 {
		flags := http2.Flags(1 << bit)
		t.Run(fmt.Sprintf("%#x", flags), func(t *testing.T) {
			events := []string{"settings 1000"}
			if flags > 0x8 {
				events = append(events, `origin ["https://a.example"] dropped 0`)
			}
			wantObserved(t,
				join(settings(), frame(frameOrigin, flags, 0, entries("https://a.example")...)),
				settings(), events...)
		})
	}
}

func TestO1_OtherStreamIgnored(t *testing.T) {
	wantObserved(t,
		join(settings(), frame(frameOrigin, 0, 1, entries("https://a.example")...)),
		settings(), "settings 1000")
}

func TestO1_ReservedBitOfStreamIDIgnored(t *testing.T) {
	wantObserved(t,
		join(settings(), frame(frameOrigin, 0, 1<<31, entries("https://a.example")...)),
		settings(), "settings 1000", `origin ["https://a.example"] dropped 0`)
}

func TestO1_PassedWithinFieldBlock(t *testing.T) {
	for _, opener := range []http2.FrameType{http2.FrameHeaders, http2.FramePushPromise} {
		block := join(settings(), frame(opener, 0, 1, make([]byte, 8)...))
		more := frame(http2.FrameContinuation, 0, 1, 1, 2)
		end := frame(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 1, 3)
		in := join(block, origin("https://a.example"), more, origin("https://b.example"), end)

		wantObserved(t, join(in, origin("https://c.example")), in,
			"settings 1000", `origin ["https://c.example"] dropped 0`)
	}
}

func TestO1_PassedBeforeSettings(t *testing.T) {
	in := join(origin("https://a.example"), settings())
	wantObserved(t, join(in, origin()), in, "origin [] dropped 0", "settings 1000")
}

// C8: what waits for the first SETTINGS finds the fence up, if ORIGIN arrives
// with them.
func TestC8_FirstSettingsAreReportedAfterORIGIN(t *testing.T) {
	set, list := settings(3, 7), origin("https://a.example")
	data := frame(http2.FrameData, 0, 1, make([]byte, 20)...)
	const origins, settings7 = `origin ["https://a.example"] dropped 0`, "settings 7"
	for _, tt := range []struct {
		name string
		in   []byte
		cut  int // where the first Read ends; 0: nowhere
		want []string
	}{
		{"in one Read", join(set, list, data), 0, []string{origins, settings7}},
		{"in one Read, ORIGIN later in it", join(set, data, list), 0, []string{origins, settings7}},
		{"in another Read", join(set, list), len(set), []string{settings7, origins}},
		{"a Read ends within ORIGIN's header", join(set, list), len(set) + 1, []string{origins, settings7}},
		{"at the end of ORIGIN's header", join(set, list), len(set) + 9, []string{origins, settings7}},
		{"within its payload", join(set, list), len(set) + 12, []string{origins, settings7}},
		{"within a header that is another frame's", join(set, data, list), len(set) + 1, []string{origins, settings7}},
		{"within another frame's payload", join(set, data, list), len(set) + 12, []string{settings7, origins}},
		{"within an ORIGIN frame to be ignored", join(set, frame(frameOrigin, 1, 0, entries("a")...), list), len(set) + 11, []string{settings7, origins}},
		{"ORIGIN that does not end", join(set, list[:12]), 0, nil},
		{"SETTINGS twice", join(settings(3, 9), set, list), 0, []string{origins, settings7}},
		{"changed in another Read", join(settings(3, 9), set, list), len(set), []string{"settings 9", settings7, origins}},
		{"GOAWAY", join(set, frame(http2.FrameGoAway, 0, 0, words(0, 0)...)), 0, []string{"goaway 0 0", settings7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := &fakeConn{in: tt.in, err: errCut}
			if tt.cut > 0 {
				src.sizes = []int{tt.cut, len(tt.in)}
			}
			var rec recorder
			c, _ := observe(src, &rec, testMaxFrame)
			readAll(t, c, []int{4096})
			if diff := cmp.Diff(append(tt.want, "closed cut"), rec.lines); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// The engine takes an acknowledgement for the first SETTINGS frame.
func TestO1_CutAfterSettingsAck(t *testing.T) {
	ack := frame(http2.FrameSettings, http2.FlagSettingsAck, 0)
	wantObserved(t, join(ack, origin()), ack, "origin [] dropped 0")
}

// A connection that drains may still be told what it serves.
func TestO1_CutAfterGoAway(t *testing.T) {
	in := join(settings(), frame(http2.FrameGoAway, 0, 0, words(1, 0)...))
	wantObserved(t, join(in, origin("https://a.example")), in,
		"settings 1000", "goaway 1 0", `origin ["https://a.example"] dropped 0`)
}

// Padding is a part of the payload; what looks like a frame in it is none.
func TestO1_LookalikesWithinPayloads(t *testing.T) {
	inner := origin("https://a.example")
	padded := append([]byte{byte(len(inner))}, inner...)
	for _, f := range [][]byte{
		frame(http2.FrameData, 0, 1, inner...),
		frame(http2.FrameData, http2.FlagDataPadded, 1, padded...),
		frame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, padded...),
		frame(http2.FrameGoAway, 0, 0, append(words(1, 0), inner...)...),
		frame(0xfa, 0, 0, inner...),
	} {
		in := join(settings(), f)
		out, events := observed(t, in)
		if !bytes.Equal(out, in) || slices.ContainsFunc(events, func(e string) bool { return strings.HasPrefix(e, "origin") }) {
			t.Errorf("of %x the engine saw %x, events %q", in, out, events)
		}
	}
}

func TestO1_PassedWhenTooLarge(t *testing.T) {
	large := frame(frameOrigin, 0, 0, make([]byte, testMaxFrame+1)...)
	in := join(settings(), large)
	wantObserved(t, in, in, "settings 1000")

	largest := frame(frameOrigin, 0, 0, entries(strings.Repeat("a", testMaxFrame-2))...)
	out, events := observed(t, join(settings(), largest))
	if len(out) != len(settings()) || len(events) != 3 {
		t.Errorf("a frame of just the limit was not read: %d bytes left, %d events", len(out), len(events))
	}
}

func TestO1_OtherUnknownFramesPassed(t *testing.T) {
	in := join(settings(), frame(0xa, 0, 0, []byte("alt-svc")...), frame(0xb, 0, 0), frame(0xd, 0xff, 3, 1))
	wantObserved(t, in, in, "settings 1000")
}

func TestSettingsEvents(t *testing.T) {
	const maxStreams, window = uint32(http2.SettingMaxConcurrentStreams), uint32(http2.SettingInitialWindowSize)
	tests := []struct {
		name string
		in   []byte
		want []string
	}{
		{"absent", settings(window, 1), []string{"settings 1000"}},
		{"given", settings(window, 1, maxStreams, 7), []string{"settings 7"}},
		{"zero", settings(maxStreams, 0), []string{"settings 0"}},
		{"largest", settings(maxStreams, 1<<32-1), []string{"settings 4294967295"}},
		{"twice in a frame, the last counts", settings(maxStreams, 7, maxStreams, 8), []string{"settings 8"}},
		{"absent later", join(settings(maxStreams, 7), settings(), settings(maxStreams, 8)), []string{"settings 7", "settings 8"}},
		{"repeated", join(settings(maxStreams, 7), settings(maxStreams, 7)), []string{"settings 7"}},
		{"changed and back", join(settings(maxStreams, 7), settings(maxStreams, 8), settings(maxStreams, 7)), []string{"settings 7", "settings 8", "settings 7"}},
		{"lowered", join(settings(), settings(maxStreams, 1)), []string{"settings 1000", "settings 1"}},
		{"acknowledgement", join(settings(), frame(http2.FrameSettings, http2.FlagSettingsAck, 0)), []string{"settings 1000"}},
		{"length", join(settings(), frame(http2.FrameSettings, 0, 0, 0, 3, 0, 0, 0)), []string{"settings 1000"}},
		{"stream", join(settings(), frame(http2.FrameSettings, 0, 1)), []string{"settings 1000"}},
		{"cut short", join(settings(), settings(maxStreams, 1)[:14]), []string{"settings 1000"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantObserved(t, tt.in, tt.in, tt.want...) })
	}
}

func TestGoAwayAndResetEvents(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		want []string
	}{
		{"goaway", frame(http2.FrameGoAway, 0, 0, words(7, 11)...), []string{"goaway 7 11"}},
		{"goaway with debug data", frame(http2.FrameGoAway, 0, 0, append(words(7, 11), "too many pings"...)...), []string{"goaway 7 11"}},
		{"goaway's reserved bit", frame(http2.FrameGoAway, 0, 0, words(1<<31|7, 0)...), []string{"goaway 7 0"}},
		{"goaway twice", join(frame(http2.FrameGoAway, 0, 0, words(1<<31-1, 0)...), frame(http2.FrameGoAway, 0, 0, words(3, 0)...)), []string{"goaway 2147483647 0", "goaway 3 0"}},
		{"goaway too short", frame(http2.FrameGoAway, 0, 0, words(7)...), nil},
		{"goaway on a stream", frame(http2.FrameGoAway, 0, 1, words(7, 0)...), nil},
		{"goaway cut short", frame(http2.FrameGoAway, 0, 0, append(words(7, 0), 1, 2, 3)...)[:18], nil},
		{"reset", frame(http2.FrameRSTStream, 0, 1, words(uint32(http2.ErrCodeProtocol))...), []string{"unusable"}},
		{"reset twice", join(frame(http2.FrameRSTStream, 0, 1, words(uint32(http2.ErrCodeProtocol))...), frame(http2.FrameRSTStream, 0, 3, words(uint32(http2.ErrCodeProtocol))...)), []string{"unusable"}},
		{"reset for another reason", frame(http2.FrameRSTStream, 0, 1, words(uint32(http2.ErrCodeRefusedStream))...), nil},
		{"reset of the connection", frame(http2.FrameRSTStream, 0, 0, words(uint32(http2.ErrCodeProtocol))...), nil},
		{"reset of wrong length", frame(http2.FrameRSTStream, 0, 1, append(words(uint32(http2.ErrCodeProtocol)), 0)...), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := join(settings(), tt.in)
			wantObserved(t, in, in, append([]string{"settings 1000"}, tt.want...)...)
		})
	}
}
