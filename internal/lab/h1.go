package lab

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
)

// serveHTTP1 hands the connection to net/http and returns when it is closed.
func serveHTTP1(c *Conn) {
	script := &c.endpoint.server
	if script.OnConn != nil {
		script.OnConn(c)
	}
	ln := &oneConn{conn: make(chan net.Conn, 1), ended: make(chan struct{}), addr: c.raw.LocalAddr()}
	ln.conn <- c.tls
	var hijacked bool // written before ended is closed
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	served := 0 // requests; net/http serves them one after the other
	server := &http.Server{
		Protocols:                    protocols,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(io.Discard, "", 0),
		BaseContext:                  func(net.Listener) context.Context { return c.ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				hijacked = state == http.StateHijacked
				close(ln.ended)
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served++
			if script.GoAwayAfter > 0 && served >= script.GoAwayAfter {
				w.Header().Set("Connection", "close")
			}
			answerHTTP1(c, w, r)
		}),
	}
	_ = server.Serve(ln)
	if hijacked {
		<-c.ctx.Done() // its new owner has no way to tell us more
	}
}

// answerHTTP1 answers one request.
func answerHTTP1(c *Conn, w http.ResponseWriter, r *http.Request) {
	script := &c.endpoint.server
	x := &exchange{Context: r.Context(), conn: c, req: Request{
		Authority: r.Host,
		Method:    r.Method,
		Path:      r.RequestURI,
		Header:    r.Header,
	}}
	c.note(&x.req)
	record := &c.lab.record
	row := record.request(c.row, &x.req, 0)
	body := &countingBody{ReadCloser: r.Body}
	resp := &http1Response{ResponseWriter: w, record: record, row: row}
	completed := false
	defer func() {
		err := error(nil)
		if !completed {
			err = http.ErrAbortHandler
		} else if resp.status == 0 {
			resp.status = http.StatusOK
		}
		record.done(row, resp.status, body.n, err)
	}()

	r = r.WithContext(x)
	if r.Body != http.NoBody {
		r.Body = body
	}
	if script.Delay != nil && sleep(x, script.Delay(&x.req)) != nil {
		panic(http.ErrAbortHandler)
	}
	if _, broken := script.broken(&x.req); broken {
		panic(http.ErrAbortHandler)
	}
	script.answer(resp, r, &x.req)
	completed = true
}

// oneConn is a listener that accepts one connection, and then waits for its
// end.
type oneConn struct {
	conn  chan net.Conn
	ended chan struct{}
	addr  net.Addr
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conn:
		return nc, nil
	default:
	}
	<-l.ended
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.addr }

// http1Response notes the status before net/http sends it.
type http1Response struct {
	http.ResponseWriter
	record *Record
	row    *RequestRecord
	status int
}

func (w *http1Response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *http1Response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
		w.record.status(w.row, status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *http1Response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

func (w *http1Response) Flush() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

type countingBody struct {
	io.ReadCloser
	n int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}
