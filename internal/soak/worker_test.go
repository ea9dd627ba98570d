package soak

import (
	"context"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// worker sends one request after the other.
type worker struct {
	*run
	dice  dice
	under atomic.Pointer[underway] // nil between requests
}

// underway is the request that a worker waits for.
type underway struct {
	*request
	since time.Time
}

// work sends requests until the time is over, or the budget is spent.
func (w *worker) work(ctx context.Context, until time.Time) {
	for time.Now().Before(until) && ctx.Err() == nil {
		if !w.send(ctx, w.world.draw(w.dice)) {
			return
		}
	}
}

// send sends a request and accounts for it. It reports false if no further
// request makes sense.
func (w *worker) send(ctx context.Context, r *request) bool {
	if r.id = w.world.ledger.begin(r); r.id == 0 {
		return false
	}
	start := time.Now()
	w.under.Store(&underway{r, start})
	outcome := w.do(ctx, r)
	w.under.Store(nil)
	w.world.totals.took(time.Since(start), r)
	w.world.totals.count(sectionOutcomes, outcome)
	w.world.ledger.end(r.id)
	return outcome != outcomeClosed
}

// do sends a request, and returns what has become of it.
func (w *worker) do(ctx context.Context, r *request) string {
	ctx, stop := r.context(ctx, w.world)
	defer stop()
	req, err := r.http(ctx, w.world)
	if err != nil {
		w.world.ledger.breach(r.id, "%v", err)
		return "not sent"
	}
	res, err := w.tr.RoundTrip(req)
	switch {
	case (res == nil) == (err == nil):
		w.world.ledger.breach(r.id, "RoundTrip returned %v and %v", res, err)
		return "neither answer nor error, or both"
	case err != nil:
		return w.judge(r, err)
	}
	defer res.Body.Close()
	if res.Request != req {
		w.world.ledger.breach(r.id, "Response.Request is not the request")
	}
	w.checkHeader(r, res)
	switch outcome, err := w.read(ctx, r, res); {
	case err != nil:
		return "answer cut short: " + w.judge(r, err)
	default:
		return strconv.Itoa(res.StatusCode) + outcome
	}
}

// checkHeader looks whether the answer is the one to the request.
func (w *worker) checkHeader(r *request, res *http.Response) {
	h := res.Header
	breach := func(what string) { w.world.ledger.breach(r.id, "%s: status %d, %v", what, res.StatusCode, h) }
	if h.Get(headerID) != strconv.FormatUint(r.id, 10) || h.Get(headerMethod) != r.method {
		breach("the answer to another request")
	}
	if h.Get(headerHost) != res.Request.URL.Host {
		breach("the answer of another host")
	}
	switch res.StatusCode {
	case http.StatusOK:
		content := w.world.content.asked(r.id, r.size)
		if h.Get(headerGot) != sumText(content.sum()) {
			breach("the server got another body")
		}
	case http.StatusMisdirectedRequest:
		// M6: sharing loses no request, unless its body is gone.
		if h.Get(headerSNI) != r.host.name && !r.once() {
			breach("the 421 of another host's connection")
		}
	case http.StatusRequestEntityTooLarge:
	default:
		breach("a status that no server has sent")
	}
}

// read reads the answer as the request wants it, which has to be what was sent.
func (w *worker) read(ctx context.Context, r *request, res *http.Response) (how string, err error) {
	h, buf := crc32.NewIEEE(), make([]byte, chunk)
	length, err := strconv.ParseInt(res.Header.Get(headerLength), 10, 64)
	if err != nil {
		w.world.ledger.breach(r.id, "an answer without its length: %v", res.Header)
	}
	stop := length + 1
	if r.reading == readPart {
		stop = w.dice.Int64N(length + 1)
	}
	read := int64(0)
	for {
		if read >= stop {
			return ", closed before its end", nil
		}
		n, err := res.Body.Read(buf)
		read += int64(n)
		_, _ = h.Write(buf[:n]) // does not fail
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
		if r.reading == readSlowly {
			pause(ctx, w.dice.upTo(5*time.Millisecond)) // the next Read tells what has ended
		}
	}
	if read != length || sumText(h.Sum32()) != res.Header.Get(headerSum) || h.Sum32() != w.world.content.answered(r.id, length).sum() {
		w.world.ledger.breach(r.id, "read %d bytes with the sum %s, where %d with %s were sent", read, sumText(h.Sum32()), length, res.Header.Get(headerSum))
	}
	return "", nil
}
