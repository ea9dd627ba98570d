package dial

import (
	"context"
	"net/http/httptrace"
	"reflect"
)

// untraced is a context without the hooks of httptrace. A Resolver that is not
// a *net.Resolver often asks one (a cache), or a server over HTTPS; the events
// of that would be taken for events of the request. The keys of those values
// are not exported, so they are known by the packages that define them; if one
// is renamed, an event is seen twice, nothing more.
type untraced struct{ context.Context }

func (c untraced) Value(key any) any {
	if t := reflect.TypeOf(key); t != nil {
		switch t.PkgPath() {
		case "internal/nettrace", "net/http/httptrace":
			return nil
		}
	}
	return c.Context.Value(key)
}

// Retrace returns ctx with its httptrace hooks changed by edit, which gets a
// copy of them. It is for handing a connection to net/http, which would report
// a second time what has been reported here.
func Retrace(ctx context.Context, edit func(*httptrace.ClientTrace)) context.Context {
	trace := httptrace.ContextClientTrace(ctx)
	if trace == nil {
		return ctx
	}
	edited := *trace
	edit(&edited)
	return httptrace.WithClientTrace(untraced{ctx}, &edited)
}
