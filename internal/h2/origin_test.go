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

func TestO2_Payloads(t *testing.T) {
	const a, b = "https://a.example", "https://b.example:8443"
	tests := []struct {
		name    string
		payload []byte
		want    string
	}{
		{"empty", nil, `origin [] dropped 0`},
		{"two", entries(a, b), `origin ["https://a.example" "https://b.example:8443"] dropped 0`},
		{"empty entry", entries("", a, ""), `origin ["" "https://a.example" ""] dropped 0`},
		{"not an origin", entries("http://a.example/x", "\x00\xff"), `origin ["http://a.example/x" "\x00\xff"] dropped 0`},
		{"entry past the frame", append(entries(a), 0, 2, 'x'), `origin ["https://a.example"] dropped 0`},
		{"first entry past the frame", []byte{0xff, 0xff, 'x', 0, 1, 'y'}, `origin [] dropped 0`},
		{"half a length", append(entries(a), 0), `origin ["https://a.example"] dropped 0`},
		{"length alone", append(entries(a), 0, 1), `origin ["https://a.example"] dropped 0`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantObserved(t, join(settings(), frame(frameOrigin, 0, 0, tt.payload...)), settings(),
				"settings 1000", tt.want)
		})
	}
}

// wantOrigins reads the frames with room for so many bytes of ORIGIN payload.
// All that is left of them has to be the PING at the end.
func wantOrigins(t *testing.T, room int, frames []byte, want ...string) {
	t.Helper()
	ping := frame(http2.FramePing, 0, 0, words(0, 0)...)
	var rec recorder
	c, o := observe(&fakeConn{in: join(settings(), frames, ping), sizes: []int{len(settings()), 1 << 20}, err: errCut}, &rec, testMaxFrame)
	o.scan.originRoom = room
	if out, _ := readAll(t, c, []int{4096}); !bytes.Equal(out, join(settings(), ping)) {
		t.Errorf("the engine saw %x, want SETTINGS and PING", out)
	}
	want = slices.Concat([]string{"settings 1000"}, want, []string{"closed cut"})
	if diff := cmp.Diff(want, rec.lines); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestO4_Room(t *testing.T) {
	tests := []struct {
		name   string
		room   int
		frames []byte
		want   []string
	}{
		{"just enough", 8, join(origin("ab"), origin("cd")), []string{`origin ["ab"] dropped 0`, `origin ["cd"] dropped 0`}},
		{"a byte short", 7, join(origin("ab"), origin("cd")), []string{`origin ["ab"] dropped 0`, `origin [] dropped 1`}},
		{"within a frame", 7, origin("ab", "cd", "ef"), []string{`origin ["ab"] dropped 2`}},
		{"what is behind is dropped though shorter", 7, origin("ab", "cd", ""), []string{`origin ["ab"] dropped 2`}},
		{"lengths count", 6, origin("", "", "", ""), []string{`origin ["" "" ""] dropped 1`}},
		{"none", 0, join(origin("ab"), origin("cd")), []string{`origin [] dropped 1`}},
		{"none is enough for none", 0, join(origin(), origin("ab"), origin("cd")), []string{`origin [] dropped 0`, `origin [] dropped 1`}},
		{"the frame that exceeds is the last", 4, join(origin("ab"), origin("cd", "ef"), origin(""), origin(), origin("cd")),
			[]string{`origin ["ab"] dropped 0`, `origin [] dropped 2`}},
		{"bytes that are no entry count", 7, join(frame(frameOrigin, 0, 0, 0xff, 0xff, 1), origin("ab"), origin("cd")),
			[]string{`origin [] dropped 0`, `origin ["ab"] dropped 0`, `origin [] dropped 1`}},
		{"bytes that are no entry exceed", 4, join(origin("ab"), frame(frameOrigin, 0, 0, 0), origin("cd")), []string{`origin ["ab"] dropped 0`}},
		{"ignored frames do not count", 4, join(frame(frameOrigin, 1, 0, entries("x")...), frame(frameOrigin, 0, 1, entries("y")...), origin("ab")),
			[]string{`origin ["ab"] dropped 0`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantOrigins(t, tt.room, tt.frames, tt.want...) })
	}
}

func TestO4_RoomOfAConnection(t *testing.T) {
	room := newScanner(nil, testMaxFrame).originRoom
	eighth := strings.Repeat("a", 8<<10-2) // and two bytes of length
	frames := bytes.Repeat(origin(eighth), 7)
	want := slices.Repeat([]string{fmt.Sprintf("origin [%q] dropped 0", eighth)}, 8)
	wantOrigins(t, room, join(frames, origin(eighth), origin("b"), origin("c")),
		append(want, "origin [] dropped 1")...)
	wantOrigins(t, room, join(frames, origin(eighth+"a"), origin("b")),
		append(want[:7:7], "origin [] dropped 1")...)
}

// Distinct origins are for the set to count: what repeats them is not to keep
// later ones out.
func TestO4_EntriesAreNotCounted(t *testing.T) {
	frames := bytes.Repeat(origin(make([]string, 200)...), 50)
	var rec recorder
	c, _ := observe(&fakeConn{in: join(settings(), frames, origin("https://late.example")), sizes: []int{len(settings()), 4096}, err: errCut}, &rec, testMaxFrame)
	readAll(t, c, []int{4096})
	if got := rec.lines[len(rec.lines)-2]; got != `origin ["https://late.example"] dropped 0` {
		t.Errorf("after 10,000 entries: %s", got)
	}
}

func TestO4_FloodsAreSilent(t *testing.T) {
	const n = 10_000
	tests := []struct {
		name  string
		frame []byte
		want  []string
	}{
		{"empty", origin(), []string{"origin [] dropped 0"}},
		{"broken", frame(frameOrigin, 0, 0, 0, 9), []string{"origin [] dropped 0"}},
		{"beyond the cap", origin("ab", "cd"), []string{`origin ["ab" "cd"] dropped 0`, `origin [] dropped 2`}},
		{"reserved flag", frame(frameOrigin, 8, 0, entries("ab")...), nil},
		{"on a stream", frame(frameOrigin, 0, 1, entries("ab")...), nil},
		{"settings", settings(), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var rec recorder
			c, o := observe(&fakeConn{in: join(settings(), bytes.Repeat(tt.frame, n)), sizes: []int{len(settings()), 4096}, err: errCut}, &rec, testMaxFrame)
			o.scan.originRoom = 8
			readAll(t, c, []int{4096})
			want := slices.Concat([]string{"settings 1000"}, tt.want, []string{"closed cut"})
			if diff := cmp.Diff(want, rec.lines); diff != "" {
				t.Errorf("%d frames: events (-want +got):\n%s", n, diff)
			}
		})
	}
}

func TestO4_NoMemoryBetweenFrames(t *testing.T) {
	var rec recorder
	c, o := observe(&fakeConn{in: join(settings(), frame(http2.FramePing, 0, 0, words(0, 0)...)), err: errCut}, &rec, testMaxFrame)
	readAll(t, c, []int{4096})
	if o.scan.origin != nil {
		t.Error("a connection without ORIGIN frames has an origin reader")
	}

	var r originReader
	p := entries("https://a.example")
	r.begin(len(p), maxOriginBytes)
	r.write(p)
	r.end()
	if r.text != nil || r.ends != nil {
		t.Error("the reader keeps a frame's text after its end")
	}
}
