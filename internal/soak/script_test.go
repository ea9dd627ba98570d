package soak

import (
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// chunk is how much of a body a server reads or writes at once.
const chunk = 8 << 10

// play is what the server does about the request. Each of its misdeeds is rare
// enough for most requests to succeed.
func (v *visit) play() {
	d := v.dice
	hasBody := v.r.Body != http.NoBody
	if !v.dawdle() {
		_, err := v.r.Body.Read(make([]byte, 1)) // which has failed by now, or is about to
		v.checkLength(err)
		v.abandon("given up")
	}
	switch {
	case d.chance(1):
		v.refuse()
	case hasBody && d.chance(1):
		_, _ = io.CopyN(io.Discard, v.r.Body, d.Int64N(16<<10)) // the stream may end first
		v.refuse()
	case d.chance(0.7):
		v.reset("reset before it was processed", resetCodes()...)
	case v.turned():
		v.turnAway()
	case hasBody && d.chance(1):
		v.fault("answered before the body was read")
		v.process()
		v.answer(http.StatusRequestEntityTooLarge, d.Int64N(4<<10))
	default:
		v.receive()
		v.process()
		switch {
		case d.chance(1):
			v.reset("reset after it was processed", resetCodes()...)
		case v.world.rough.Load() && d.chance(0.5):
			v.fault("cut after it was processed")
			v.conn.Cut()
		default:
			v.answer(http.StatusOK, v.length())
		}
	}
}

// dawdle takes some time, and reports whether the request is still wanted.
func (v *visit) dawdle() bool {
	d, limit := v.dice, time.Duration(0)
	switch n := d.Float64() * 100; {
	case n < 0.3:
		limit = 400 * time.Millisecond
	case n < 5:
		limit = 40 * time.Millisecond
	case n < 15:
		limit = 4 * time.Millisecond
	}
	return pause(v.r.Context(), d.upTo(limit)+time.Duration(v.slow.Load()))
}

// resetCodes returns the errors that streams are reset with. None of them says
// that nothing was processed. PROTOCOL_ERROR is the one after which a GET is sent
// again, and nothing else may be.
func resetCodes() []http2.ErrCode {
	return []http2.ErrCode{
		http2.ErrCodeCancel, http2.ErrCodeInternal, http2.ErrCodeEnhanceYourCalm,
		http2.ErrCodeStreamClosed, http2.ErrCodeProtocol, http2.ErrCodeProtocol,
	}
}

// refuse says truly that the request was not processed.
func (v *visit) refuse() { v.reset("refused", http2.ErrCodeRefusedStream) }

// reset ends the stream with one of several errors.
func (v *visit) reset(fault string, codes ...http2.ErrCode) {
	v.fault(fault)
	if v.req.Stream > 0 {
		_ = v.conn.Reset(v.req.Stream, pick(v.dice, codes...))
	}
	v.abandon(fault)
}

// fault counts a fault that is one of the server's, not of the fault goroutine's.
func (v *visit) fault(kind string) { v.world.totals.count(sectionFaults, kind) }

// abandon ends the attempt without an answer.
func (v *visit) abandon(fate string) {
	v.world.ledger.settle(v.attempt, fate)
	panic(http.ErrAbortHandler)
}

// turned reports whether the request is answered 421.
func (v *visit) turned() bool {
	if v.host == nil || v.serves[v.host.name] == nil {
		return true
	}
	switch turning(v.host.turns.Load()) {
	case turnsOthers:
		return v.req.SNI != v.host.name
	case turnsSome:
		return v.dice.chance(50)
	case turnsAll:
		return true
	}
	return false
}

// turnAway answers 421, sometimes at such a length that it had better not be
// read to its end (M7).
func (v *visit) turnAway() {
	if !v.conn.act(v.req.Stream) {
		v.abandon("left out by a GOAWAY")
	}
	v.world.ledger.misdirect(v.id, v.attempt)
	v.world.totals.count(sectionServers, "answers 421")
	length := v.dice.Int64N(512)
	if v.dice.chance(2) {
		length = 1 << 20
	}
	taken := false
	defer func() {
		if !taken {
			v.world.ledger.unsaid(v.id)
		}
	}()
	v.answer(http.StatusMisdirectedRequest, length)
	taken = true
}

// receive reads the body, which has to be the one that was sent.
func (v *visit) receive() {
	h, buf := crc32.NewIEEE(), make([]byte, chunk)
	slow := v.dice.chance(2)
	length := int64(0)
	for {
		n, err := v.r.Body.Read(buf)
		length += int64(n)
		_, _ = h.Write(buf[:n]) // does not fail
		if err == io.EOF {
			break
		}
		v.checkLength(err)
		if err != nil || slow && !pause(v.r.Context(), v.dice.upTo(3*time.Millisecond)) {
			v.abandon("body not received")
		}
	}
	v.got = h.Sum32()
	sent, sum := v.r.Header.Get(headerLength), v.r.Header.Get(headerSum)
	if sent != strconv.FormatInt(length, 10) || sum != sumText(v.got) {
		v.world.ledger.breach(v.id, "%s got a complete body of %d bytes with the sum %s, but %s bytes with %s were sent", v.ip, length, sumText(v.got), sent, sum)
	}
}

// checkLength looks whether err, with which the body ended, is the lab's
// complaint about a body that was complete but for its length.
func (v *visit) checkLength(err error) {
	if err != nil && strings.Contains(err.Error(), "Content-Length") {
		v.world.ledger.breach(v.id, "%s got a body of another length than was declared: %v", v.ip, err)
	}
}

// process does what the request asks for, which is to be done once.
func (v *visit) process() {
	if !v.conn.act(v.req.Stream) {
		v.abandon("left out by a GOAWAY")
	}
	v.world.ledger.process(v.id, v.attempt, idempotent(v.r.Method))
	v.conn.answers(v.req.Host())
	v.world.totals.count(sectionServers, "requests processed")
}

func sumText(sum uint32) string { return strconv.FormatUint(uint64(sum), 16) }
