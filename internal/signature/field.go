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
