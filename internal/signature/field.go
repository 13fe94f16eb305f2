package signature

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
)

// field is a compiled Field.
type field struct {
	header string // canonical
	path   []string
}

func compileField(f Field) field {
	c := field{header: http.CanonicalHeaderKey(f.Header)}
	if f.JSON != "" {
		c.path = strings.Split(f.JSON, ".")
	}
	return c
}

func (f field) find(h http.Header, body []byte) (string, bool) {
	var text string
	switch {
	case f.header != "":
		if values := h[f.header]; len(values) > 0 {
			text = values[0]
		}
	case len(f.path) > 0:
		text, _ = lookupJSON(body, f.path)
	}
	if !storable(text) {
		return "", false
	}
	return text, true
}

// storable keeps out what a text column, a log line or a header could not hold.
func storable(s string) bool {
	return s != "" && len(s) <= maxFieldBytes && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}
