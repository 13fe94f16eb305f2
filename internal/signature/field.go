package signature

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kapsel-dev/kapsel/internal/jsonpath"
)

// field is a compiled Field.
type field struct {
	header string // canonical
	paths  []jsonpath.Path
}

// Find reads f of a request. It reports false if f is nowhere, or if what stands there is over 512 bytes, or not plain UTF-8 text.
func (f Field) Find(h http.Header, body []byte) (string, bool) {
	c := compileField(f)
	return c.find(h, body)
}

func compileField(f Field) field {
	c := field{header: http.CanonicalHeaderKey(f.Header)}
	for _, path := range f.JSON {
		c.paths = append(c.paths, jsonpath.Parse(path))
	}
	return c
}

func (f *field) find(h http.Header, body []byte) (string, bool) {
	var text string
	switch {
	case f.header != "":
		if values := h[f.header]; len(values) > 0 {
			text = values[0]
		}
	case len(f.paths) > 0:
		var found bool
		if text, found = f.paths[0].Text(body); !found {
			return "", false
		}
		for _, path := range f.paths[1:] {
			more, found := path.Text(body)
			if !found {
				return "", false
			}
			text += ":" + more
		}
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
