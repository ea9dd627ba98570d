package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

const userAgent = "h2coalesce"

var errHeader = errors.New("is not of the form 'Name: value', 'Name;' or 'Name:'")

// parseHeaders reads headers as curl has them: 'Name: value', 'Name;' for an
// empty value, and 'Name:' to leave one out that would be sent otherwise. The
// value of Host is returned by itself, as http.Request wants it. The errors do
// not show values.
func parseHeaders(lines []string) (header http.Header, host string, err error) {
	header = http.Header{"User-Agent": {userAgent}}
	given := make(map[string]bool) // headers whose default is gone
	for _, line := range lines {
		name, value, colon := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		empty := false
		if !colon {
			if name, empty = strings.CutSuffix(line, ";"); !empty {
				return nil, "", errHeader
			}
		}
		if !httpguts.ValidHeaderFieldName(name) {
			// What is no name may be a value that was given without one.
			return nil, "", fmt.Errorf("%w: what precedes the colon is no name", errHeader)
		}
		if !httpguts.ValidHeaderFieldValue(value) {
			return nil, "", fmt.Errorf("%s: the value has a character that headers cannot have", name)
		}
		key := http.CanonicalHeaderKey(name)
		switch {
		case key == "Host" && value == "":
			return nil, "", fmt.Errorf("%s: a value is needed", name)
		case key == "Host":
			host = value
		case value == "" && !empty:
			// net/http sends no User-Agent if it is set to nothing, and its
			// own if it is not set.
			if delete(header, key); key == "User-Agent" {
				header[key] = []string{""}
			}
			given[key] = false
		case !given[key]:
			header[key] = []string{value}
			given[key] = true
		default:
			header[key] = append(header[key], value)
		}
	}
	return header, host, nil
}
