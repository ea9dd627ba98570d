package transport

import (
	"context"
	"net/url"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// optionsKey is the context key of an *options.
type optionsKey struct{}

// options are what a context asks of the requests made with it.
type options struct {
	trace     *Trace
	partition string
	own       bool

	// Not asked by a context, but found out on the way: see destination.
	proxy      *url.URL
	proxyAsked bool
}

func optionsOf(ctx context.Context) options {
	if o, ok := ctx.Value(optionsKey{}).(*options); ok {
		return *o
	}
	return options{}
}

func withOptions(ctx context.Context, change func(*options)) context.Context {
	o := optionsOf(ctx)
	change(&o)
	return context.WithValue(ctx, optionsKey{}, &o)
}

// Trace is told what a Transport decides for a request, unless the request is
// Base's: plain HTTP, through a proxy, or to a host that speaks HTTP/1.1. Each
// field may be nil. The functions are called by the goroutine that called
// RoundTrip, before RoundTrip returns; while one runs, the request waits.
type Trace struct {
	// Decided is called each time that a connection is chosen, so more than
	// once for a request that is sent again. For it, Policy.Allow and
	// VerifyConnection are also asked about connections that would not be
	// chosen.
	Decided func(coalesce.Decision)

	// Misdirected is called when the server has answered that the request was
	// misdirected, before the request is sent again or the answer is handed to
	// the caller.
	Misdirected func(Misdirected)
}

// WithTrace returns a context whose requests tell tr what is decided for them.
// It replaces a trace that ctx may have; nil removes it.
func WithTrace(ctx context.Context, tr *Trace) context.Context {
	return withOptions(ctx, func(o *options) { o.trace = tr })
}

// WithPartition returns a context whose requests share connections only with
// requests of the same partition, even those for one and the same host. Nor do
// partitions resume each other's TLS sessions, though they share the room in a
// ClientSessionCache. The empty key stands for no partition; requests without
// one are apart from those with one, too.
func WithPartition(ctx context.Context, key string) context.Context {
	return withOptions(ctx, func(o *options) { o.partition = key })
}

// WithoutCoalescing returns a context whose requests are sent only on
// connections that were dialed for their own host. Such a connection may still
// carry the requests of other hosts.
func WithoutCoalescing(ctx context.Context) context.Context {
	return withOptions(ctx, func(o *options) { o.own = true })
}

func (tr *Trace) decided(d func() coalesce.Decision) {
	if tr != nil && tr.Decided != nil {
		tr.Decided(d())
	}
}

func (tr *Trace) misdirected(m Misdirected) {
	if tr != nil && tr.Misdirected != nil {
		tr.Misdirected(m)
	}
}
