package h2

import (
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/net/http2"
)

const (
	frameHeaderLen = 9 // RFC 9113 §4.1
	frameOrigin    = http2.FrameType(0xc)

	// The flags that a later version of RFC 8336 may give a meaning which
	// changes the frame's; §2.1 has clients ignore a frame that sets one.
	originReservedFlags = http2.Flags(0x1 | 0x2 | 0x4 | 0x8)

	// streamIDMask leaves out the reserved bit (RFC 9113 §4.1).
	streamIDMask = 1<<31 - 1

	// engineMaxStreams is the engine's limit for a server that sets none.
	engineMaxStreams = 1000
)

// interest is what a frame is to the scanner.
type interest uint8

const (
	pass         interest = iota // goes to the engine unread
	cut                          // is left out unread
	readOrigin                   // is left out, and reported
	readSettings                 // goes to the engine, and is reported
	readGoAway                   //
	readReset                    //
)

// A scanner follows the frames in the bytes that a connection receives,
// reports those of interest and removes ORIGIN frames. Other payloads are
// skipped: neither looked at nor copied.
type scanner struct {
	ev       Events
	maxFrame uint32 // the largest payload that the engine accepts

	// A frame header is withheld until it is complete, since it may be one
	// that has to be left out.
	held  [frameHeaderLen - 1]byte
	nheld int

	started    bool // the server's first SETTINGS frame has begun
	inBlock    bool // a field block is open: only CONTINUATION may follow
	settled    bool // a SETTINGS frame was read whole
	unreported bool // Settings has yet to be reported for the first time, see report
	unusable   bool // Unusable was reported
	fenced     bool // Origin was reported
	maxStreams uint32
	originRoom int // bytes of ORIGIN payload still to be read; negative: exceeded

	// next is maxStreams as the SETTINGS frame being read has it.
	next uint32

	// answered is set with each HEADERS and DATA frame, for whoever unsets it.
	answered atomic.Bool

	what   interest // the frame being read
	left   uint32   // bytes of its payload still to come
	field  [8]byte  // the fixed part of its payload, or one setting
	nfield int
	origin *originReader // nil until the first ORIGIN frame
}

func newScanner(ev Events, maxFrame uint32) *scanner {
	return &scanner{ev: ev, maxFrame: maxFrame, maxStreams: engineMaxStreams, originRoom: maxOriginBytes}
}

// release moves the withheld bytes to the start of p, which has room for
// them, and returns how many they were.
func (s *scanner) release(p []byte) int {
	n := copy(p, s.held[:s.nheld])
	s.nheld = 0
	return n
}

// scan reads p, which starts with the bytes that release returned, moves what
// the engine is to see to the front of p, and returns how much that is.
func (s *scanner) scan(p []byte) int {
	w := 0
	for r := 0; r < len(p); {
		var n int
		switch {
		case s.left > 0:
			n = min(int(s.left), len(p)-r)
			s.left -= uint32(n)
			s.payload(p[r : r+n])
		case len(p)-r >= frameHeaderLen:
			n = frameHeaderLen
			s.header(p[r : r+n])
		default:
			s.nheld = copy(s.held[:], p[r:])
			return w // without report
		}
		if s.what != cut && s.what != readOrigin {
			if w != r {
				copy(p[w:], p[r:r+n])
			}
			w += n
		}
		r += n
		if s.left == 0 {
			s.end()
		}
	}
	s.report()
	return w
}

// report reports the server's first SETTINGS at the end of what was read,
// unless that ends within an ORIGIN frame, or within a header, which may be
// one's. Requests wait for these SETTINGS. A server that sends ORIGIN right
// behind them, as Node does, means it to be heeded by the first request: were it
// told of the SETTINGS alone, a host that the frame fences out would be served
// before the fence is up (C8).
func (s *scanner) report() {
	if s.unreported && (s.left == 0 || s.what != readOrigin) {
		s.unreported = false
		s.ev.Settings(s.maxStreams)
	}
}

// header begins the frame whose header is h.
func (s *scanner) header(h []byte) {
	length := uint32(h[0])<<16 | uint32(h[1])<<8 | uint32(h[2])
	typ, flags := http2.FrameType(h[3]), http2.Flags(h[4])
	streamID := binary.BigEndian.Uint32(h[5:]) & streamIDMask

	s.left, s.nfield, s.what = length, 0, pass
	switch {
	case length > s.maxFrame:
		return // FRAME_SIZE_ERROR (RFC 9113 §4.2); the engine hangs up without a word
	case s.inBlock && typ != http2.FrameContinuation:
		return // PROTOCOL_ERROR (RFC 9113 §4.3, §6.10)
	case !s.started && typ != http2.FrameSettings:
		return // PROTOCOL_ERROR (RFC 9113 §3.4)
	}
	switch typ {
	case http2.FrameHeaders, http2.FramePushPromise, http2.FrameContinuation:
		// END_HEADERS is the same bit in all three (RFC 9113 §6.2, §6.6, §6.10).
		s.inBlock = !flags.Has(http2.FlagHeadersEndHeaders)
		s.answer()
	case http2.FrameData:
		s.answer()
	case http2.FrameSettings:
		s.started = true
		if !flags.Has(http2.FlagSettingsAck) && streamID == 0 && length%6 == 0 {
			s.what, s.next = readSettings, s.maxStreams
		}
	case http2.FrameGoAway:
		if streamID == 0 && length >= 8 {
			s.what = readGoAway
		}
	case http2.FrameRSTStream:
		if streamID != 0 && length == 4 {
			s.what = readReset
		}
	case frameOrigin:
		if streamID != 0 || flags&originReservedFlags != 0 || s.originRoom < 0 {
			s.what = cut // to be ignored (RFC 8336 §2.1), or beyond the cap (O4)
			return
		}
		s.what = readOrigin
		if s.origin == nil {
			s.origin = new(originReader)
		}
		s.origin.begin(int(length), s.originRoom)
		s.originRoom -= int(length)
	}
}

func (s *scanner) answer() {
	if !s.answered.Load() { // a store costs more
		s.answered.Store(true)
	}
}

// payload takes the next bytes of the current frame's payload.
func (s *scanner) payload(b []byte) {
	switch s.what {
	case readOrigin:
		s.origin.write(b)
	case readSettings:
		for len(b) > 0 && s.what == readSettings {
			n := copy(s.field[s.nfield:6], b)
			b = b[n:]
			s.nfield += n
			if s.nfield == 6 {
				s.setting()
				s.nfield = 0
			}
		}
	case readGoAway, readReset:
		s.nfield += copy(s.field[s.nfield:], b)
	}
}

// setting applies one identifier and value of a SETTINGS frame. A later value
// of the same identifier replaces an earlier one (RFC 9113 §6.5.3). With a value
// that the engine answers with a connection error, the frame is not reported.
func (s *scanner) setting() {
	v := http2.Setting{
		ID:  http2.SettingID(binary.BigEndian.Uint16(s.field[:])),
		Val: binary.BigEndian.Uint32(s.field[2:]),
	}
	switch {
	case v.Valid() != nil:
		s.what = pass
	case v.ID == http2.SettingMaxConcurrentStreams:
		s.next = v.Val
	}
}

// end reports the current frame, all of which was read, if it tells anything
// new: an event takes locks, some of them shared with other connections, and
// nine bytes are not to cost that.
func (s *scanner) end() {
	what := s.what
	s.what = pass
	switch what {
	case readSettings:
		first, changed := !s.settled, s.next != s.maxStreams
		s.settled, s.maxStreams = true, s.next
		if first {
			s.unreported = true
		} else if changed && !s.unreported {
			s.ev.Settings(s.maxStreams)
		}
	case readGoAway:
		s.ev.GoAway(binary.BigEndian.Uint32(s.field[:])&streamIDMask, binary.BigEndian.Uint32(s.field[4:]))
	case readReset:
		if http2.ErrCode(binary.BigEndian.Uint32(s.field[:])) == http2.ErrCodeProtocol && !s.unusable {
			s.unusable = true
			s.ev.Unusable()
		}
	case readOrigin:
		entries, dropped := s.origin.end()
		if s.fenced && len(entries) == 0 && dropped == 0 {
			return
		}
		s.fenced = true
		s.ev.Origin(entries, dropped)
	}
}
