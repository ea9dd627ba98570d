package lab

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
)

// request makes the handler's request.
func (st *stream) request(f *http2.MetaHeadersFrame) (*http.Request, error) {
	header := make(http.Header, len(f.Fields))
	var cookies []string
	for _, field := range f.RegularFields() {
		name := http.CanonicalHeaderKey(field.Name)
		if name == "Cookie" {
			cookies = append(cookies, field.Value)
			continue
		}
		header[name] = append(header[name], field.Value)
	}
	if cookies != nil {
		header["Cookie"] = []string{strings.Join(cookies, "; ")} // RFC 9113 §8.2.3
	}
	method, path, authority := f.PseudoValue("method"), f.PseudoValue("path"), f.PseudoValue("authority")
	if authority == "" {
		authority = header.Get("Host")
	}
	delete(header, "Host")
	var target *url.URL
	if method == http.MethodConnect {
		target, path = &url.URL{Host: authority}, authority
	} else {
		var err error
		if target, err = url.ParseRequestURI(path); err != nil {
			return nil, err
		}
	}

	ctx, cancel := context.WithCancel(st.h.c.ctx)
	st.cancel = cancel
	st.x = &exchange{Context: ctx, conn: st.h.c, req: Request{
		Stream: st.id, Authority: authority, Method: method, Path: path, Header: header,
	}}
	st.h.c.note(&st.x.req)
	r := new(http.Request).WithContext(st.x)
	r.Method, r.URL, r.RequestURI, r.Host = method, target, path, authority
	r.Proto, r.ProtoMajor, r.Header = "HTTP/2.0", 2, header
	r.RemoteAddr, r.TLS, r.Body = st.h.c.row.RemoteAddr, &st.h.c.state, http.NoBody
	if f.StreamEnded() {
		return r, nil
	}

	r.ContentLength = -1
	if length := header.Get("Content-Length"); length != "" {
		n, err := strconv.ParseInt(length, 10, 63)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("bad Content-Length: %w", err)
		}
		r.ContentLength = n
	}
	if names := header["Trailer"]; names != nil {
		delete(header, "Trailer")
		r.Trailer = make(http.Header)
		for _, name := range splitNames(names) {
			r.Trailer[name] = nil
		}
	}
	st.body = newBody(st, r)
	r.Body = st.body
	return r, nil
}

// splitNames splits comma-separated header names.
func splitNames(lists []string) []string {
	var names []string
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}
