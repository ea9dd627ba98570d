package h2

import (
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

// originFrames feeds one reader the payloads of a connection's frames and
// returns how many entries of each were accepted and dropped.
func originFrames(payloads ...[]byte) (counts [][2]int) {
	var r originReader
	for _, p := range payloads {
		r.begin(len(p))
		r.write(p)
		entries, dropped := r.end()
		counts = append(counts, [2]int{len(entries), dropped})
	}
	return counts
}

func TestO4_EntryCap(t *testing.T) {
	hundred := entries(make([]string, 100)...)
	got := originFrames(hundred, hundred, hundred, nil)
	if diff := cmp.Diff([][2]int{{100, 0}, {28, 72}, {0, 100}, {0, 0}}, got); diff != "" {
		t.Errorf("accepted and dropped (-want +got):\n%s", diff)
	}
}

func TestO4_ByteCap(t *testing.T) {
	quarter := entries(strings.Repeat("a", 16<<10))
	got := originFrames(quarter, quarter, quarter, quarter, entries("b", ""), entries("c"))
	if diff := cmp.Diff([][2]int{{1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 1}, {0, 1}}, got); diff != "" {
		t.Errorf("accepted and dropped (-want +got):\n%s", diff)
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
	r.begin(len(p))
	r.write(p)
	r.end()
	if r.text != nil || r.ends != nil {
		t.Error("the reader keeps a frame's text after its end")
	}
}
