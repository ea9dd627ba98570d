package transport

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// written is a callersBody that somebody writes to. Close ends its Read.
type written struct {
	callersBody
	pipe *io.PipeReader
}

func (b *written) Close() error {
	b.callersBody.Close()
	return b.pipe.Close()
}

// writtenTo returns a request whose body, of length bytes, is kept, and the
// caller's end of it.
func writtenTo(t interface{ Errorf(string, ...any) }, length int64) (*outgoing, *written, *io.PipeWriter) {
	pr, pw := io.Pipe()
	o, _ := outgoingOf(t, nil, length, 1<<10)
	body := &written{callersBody{Reader: pr, t: t}, pr}
	o.source.body = body
	return &o, body, pw
}

// reader is an attempt's way to read its body.
type reader struct {
	io.ReadCloser
	read chan result
}

type result struct {
	got []byte
	err error
}

func attemptOf(o *outgoing) *reader {
	req, _ := o.next()
	return &reader{req.Body, make(chan result, 1)}
}

// begin begins a Read of n bytes and returns when that has ended or waits.
func (r *reader) begin(n int) {
	go func() {
		p := make([]byte, n)
		n, err := r.Read(p)
		r.read <- result{p[:n], err}
	}()
	synctest.Wait()
}

// want checks what the Read has come to. "" and no error: it waits.
func (r *reader) want(t *testing.T, got string, err error) {
	t.Helper()
	select {
	case res := <-r.read:
		if string(res.got) != got || res.err != err || got == "" && err == nil {
			t.Errorf("read %q, %v, want %q, %v", res.got, res.err, got, err)
		}
	default:
		if got != "" || err != nil {
			t.Errorf("the Read waits, want %q, %v", got, err)
		}
	}
}

func (b *callersBody) wantCloses(t *testing.T, want int32) {
	t.Helper()
	synctest.Wait()
	if n := b.closes.Load(); n != want {
		t.Errorf("closed %d times, want %d", n, want)
	}
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Errorf("writing %q: %v", s, err)
	}
	synctest.Wait()
}

func TestM6_TheNextAttemptGoesOnWithTheReadUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, body, pw := writtenTo(t, 8)
		first := attemptOf(o)
		first.begin(8)
		write(t, pw, "0123")
		first.want(t, "0123", nil)
		first.begin(8)
		first.want(t, "", nil)
		first.Close()
		synctest.Wait()
		first.want(t, "", errBodyClosed)

		second := attemptOf(o)
		second.begin(3)
		second.want(t, "012", nil)
		second.begin(3)
		second.want(t, "3", nil)
		second.begin(1)
		second.want(t, "", nil)
		third := attemptOf(o) // the second one is not even closed
		synctest.Wait()
		second.want(t, "", errBodyClosed)
		second.Close()
		third.begin(8)
		third.want(t, "0123", nil)
		third.begin(8)
		write(t, pw, "4567")
		third.want(t, "4567", nil)
		pw.Close()
		third.begin(1)
		third.want(t, "", io.EOF)
		body.wantCloses(t, 0)
		o.settle(false)
		third.Close()
		body.wantCloses(t, 1)
	})
}

func TestM6_ABodyIsClosedUnderItsRead(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(*outgoing, io.Closer)
	}{
		{"settled first", func(o *outgoing, c io.Closer) { o.settle(false); c.Close() }},
		{"settled last", func(o *outgoing, c io.Closer) { c.Close(); o.settle(false) }},
		{"claimed first", func(o *outgoing, c io.Closer) { o.claim(); o.settle(false); c.Close() }},
		{"claimed last", func(o *outgoing, c io.Closer) { c.Close(); o.claim(); o.settle(false) }},
		{"all twice", func(o *outgoing, c io.Closer) { c.Close(); o.settle(false); c.Close(); o.settle(false) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, body, pw := writtenTo(t, 8)
				r := attemptOf(o)
				r.begin(8)
				test.end(o, r)
				body.wantCloses(t, 1)
				r.want(t, "", errBodyClosed)
				if _, err := pw.Write([]byte("late")); err != io.ErrClosedPipe {
					t.Errorf("the writer got %v", err)
				}
			})
		})
	}
}

// What there is to say about a wrong length is the engine's to say.
func TestM6_ABodyThatIsNotAsLongAsDeclared(t *testing.T) {
	for _, size := range []int{0, 3, 5, 5000} {
		want := strings.Repeat("x", size)
		o, _ := outgoingOf(t, strings.NewReader(want), 4, 64)
		for range 2 {
			req, _ := o.next()
			if got, err := io.ReadAll(req.Body); string(got) != want || err != nil {
				t.Errorf("%d bytes of %d are read, %v", len(got), size, err)
			}
			req.Body.Close()
		}
		o.settle(false)
	}
}

// An attempt that has come to nothing may yet begin to read.
func TestM6_AClaimedBodyIsTheNextAttempts(t *testing.T) {
	for _, keep := range []int64{64, -1} {
		o, body := outgoingOf(t, strings.NewReader("body"), 4, keep)
		first, _ := o.next()
		if !o.claim() {
			t.Fatal("nothing was read, but the body is gone")
		}
		if got, err := io.ReadAll(first.Body); len(got) != 0 || err != errBodyClosed {
			t.Errorf("the first attempt has read %q, %v", got, err)
		}
		second, _ := o.next()
		first.Body.Close()
		if got, err := io.ReadAll(second.Body); string(got) != "body" || err != nil {
			t.Errorf("the second attempt has read %q, %v", got, err)
		}
		o.settle(false)
		second.Body.Close()
		if n := body.closes.Load(); n != 1 {
			t.Errorf("closed %d times", n)
		}
	}
}

// What net/http's server gives to a handler has a Close that waits for the Read.
// The Close of others does nothing at all.
func TestM6_ABodyWhoseCloseEndsNoRead(t *testing.T) {
	for _, waits := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			pr, pw := io.Pipe()
			o, body := outgoingOf(t, pr, 8, 64)
			if waits {
				o.source.body = &locked{body, make(chan struct{}, 1)}
			}
			r := attemptOf(&o)
			r.begin(8)
			r.Close()
			synctest.Wait()
			r.want(t, "", errBodyClosed)
			done := make(chan bool)
			go func() {
				o.settle(false)
				close(done)
			}()
			synctest.Wait()
			select {
			case <-done:
			default:
				t.Error("the request waits for its caller")
			}
			pw.Close()
			body.wantCloses(t, 1)
		})
	}
}

// locked is a body whose Close waits for its Read.
type locked struct {
	io.ReadCloser
	lock chan struct{} // in a bubble nobody can wait for a sync.Mutex
}

func (b *locked) Read(p []byte) (int, error) {
	b.lock <- struct{}{}
	defer func() { <-b.lock }()
	return b.ReadCloser.Read(p)
}

func (b *locked) Close() error {
	b.lock <- struct{}{}
	defer func() { <-b.lock }()
	return b.ReadCloser.Close()
}

func TestM6_AnErrorThatComesBetweenAttemptsIsTheNextOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		o, _, pw := writtenTo(t, 8)
		first := attemptOf(o)
		first.begin(8)
		first.Close()
		pw.CloseWithError(broken)
		synctest.Wait()
		if err := o.failure(); err != nil {
			t.Errorf("the first attempt failed with %v", err)
		}
		second := attemptOf(o)
		second.begin(8)
		second.want(t, "", broken)
		if err := o.failure(); err != broken {
			t.Errorf("the second attempt failed with %v", err)
		}
		second.Close()
		o.settle(false)
	})
}

func TestM6_ABufferThatWasGivenBackIsNotWrittenTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, _, pw := writtenTo(t, 8)
		req, _ := o.next()
		p := make([]byte, 8)
		read := make(chan bool)
		go func() {
			req.Body.Read(p)
			close(read)
		}()
		synctest.Wait()
		req.Body.Close()
		<-read
		copy(p, "engine's") // a race, if it is not given back
		write(t, pw, "caller's")
		if string(p) != "engine's" {
			t.Errorf("the buffer has %q", p)
		}
		o.settle(false)
	})
}

// TestM6_AnyOrder has attempts end, begin and read in any order, while the
// caller writes when it likes.
func TestM6_AnyOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		whole := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(rt, "body")
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"read", "read", "write", "close", "next"}), 1, 60).Draw(rt, "steps")
		sizes := rapid.SliceOfN(rapid.IntRange(1, 15), 8, 8).Draw(rt, "sizes")
		synctest.Test(t, func(t *testing.T) { inOrder(t, whole, steps, sizes) })
		if t.Failed() {
			rt.Fatal("see above")
		}
	})
}

func inOrder(t *testing.T, whole []byte, steps []string, sizes []int) {
	o, body, pw := writtenTo(t, int64(len(whole)))
	writes := make(chan int, len(steps))
	go func() {
		rest := whole
		for n := range writes {
			n, _ = pw.Write(rest[:min(n, len(rest))])
			rest = rest[n:]
		}
		pw.Write(rest)
		pw.Close()
	}()
	r, reads, closed := attemptOf(o), false, false
	var got []byte
	take := func() {
		select {
		case res := <-r.read:
			got, reads = append(got, res.got...), false
			if !bytes.HasPrefix(whole, got) || res.err != nil && res.err != io.EOF && !closed {
				t.Errorf("an attempt has read %q, %v of %q", got, res.err, whole)
			}
		default:
		}
	}
	next := func() { r, reads, closed, got = attemptOf(o), false, false, nil }
	for i, step := range steps {
		switch n := sizes[i%len(sizes)]; {
		case step == "read" && !reads:
			reads = true
			r.begin(n)
		case step == "write":
			writes <- n
		case step == "close":
			closed = true
			r.Close()
		case step == "next":
			next()
		}
		synctest.Wait()
		take()
		if closed && reads {
			t.Error("an attempt that has ended waits")
		}
	}
	close(writes)
	next()
	last, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(last, whole) {
		t.Errorf("the last attempt has read %q, %v, want %q", last, err, whole)
	}
	body.wantCloses(t, 0)
	r.Close()
	o.settle(false)
	body.wantCloses(t, 1)
}
