package soak

import (
	"io"
	"net/http"
	"strconv"
	"time"
)

// length returns how long an answer is to be.
func (v *visit) length() int64 {
	switch n := v.dice.Float64() * 100; {
	case n < 70:
		return v.dice.Int64N(1 << 10)
	case n < 96:
		return v.dice.Int64N(32 << 10)
	}
	return v.dice.Int64N(256 << 10)
}

// answer answers with n bytes, if nothing comes between.
func (v *visit) answer(status int, n int64) {
	d := v.dice
	body := v.world.content.answered(v.id, n)
	header := v.w.Header()
	header.Set(headerID, strconv.FormatUint(v.id, 10))
	header.Set(headerHost, v.req.Authority)
	header.Set(headerMethod, v.r.Method)
	header.Set(headerServer, v.ip)
	header.Set(headerSNI, v.req.SNI)
	header.Set(headerGot, sumText(v.got))
	header.Set(headerLength, strconv.FormatInt(n, 10))
	header.Set(headerSum, sumText(body.sum()))
	if d.chance(30) {
		header.Set("Content-Length", strconv.FormatInt(n, 10))
	}
	v.w.WriteHeader(status)
	if d.chance(20) {
		_ = http.NewResponseController(v.w).Flush() // the writes that follow fail likewise
	}

	slow := d.chance(3)
	stopAt := int64(-1) // bytes left at which the answer is given up
	if n > 0 && d.chance(0.8) {
		stopAt = d.Int64N(n)
	}
	for body.left > 0 {
		if body.left <= stopAt {
			v.breakOff()
		}
		if slow && !pause(v.r.Context(), d.upTo(8*time.Millisecond)) {
			v.abandon("answer not wanted")
		}
		if _, err := io.CopyN(v.w, body, min(chunk, body.left)); err != nil {
			v.abandon("answer not taken")
		}
	}
	v.world.ledger.settle(v.attempt, "answered "+strconv.Itoa(status))
}

// breakOff ends an answer before its end.
func (v *visit) breakOff() {
	if !v.world.rough.Load() || v.dice.chance(60) {
		v.reset("reset in the middle of the answer", resetCodes()...)
	}
	v.fault("cut in the middle of the answer")
	v.conn.Cut()
	v.abandon("cut")
}
