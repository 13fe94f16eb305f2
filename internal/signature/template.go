package signature

import (
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/kapsel-dev/kapsel/internal/jsonpath"
)

// template is a compiled Preset.Content: literals and placeholders in order.
type template []part

type part struct {
	kind partKind
	text string        // of a literal
	path jsonpath.Path // of a jsonPart
}

type partKind uint8

const (
	literal partKind = iota
	idPart
	timestampPart
	methodPart
	urlPart
	bodyPart
	formPart
	jsonPart
)

var placeholders = map[string]partKind{
	"id": idPart, "timestamp": timestampPart, "method": methodPart, "url": urlPart, "body": bodyPart, "form": formPart,
}

const jsonPlaceholder = "json:"

var errNoBody = errors.New("signed content must hold {body} exactly once")

// message is what templates are filled in from.
type message struct {
	id, timestamp, method, url string
	form                       []byte // ready to be signed
	body                       []byte
}

func compileTemplate(text string) (template, error) {
	var t template
	bodies := 0
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "{")
		if before != "" {
			t = append(t, part{kind: literal, text: before})
		}
		if !found {
			break
		}
		name, tail, _ := strings.Cut(after, "}")
		rest = tail
		if path, ok := strings.CutPrefix(name, jsonPlaceholder); ok && path != "" {
			t = append(t, part{kind: jsonPart, path: jsonpath.Parse(path)})
			continue
		}
		kind, known := placeholders[name]
		if !known {
			return nil, fmt.Errorf("signed content: {%s} is none of {timestamp}, {body}, {method}, {url}", name)
		}
		if kind == bodyPart {
			bodies++
		}
		t = append(t, part{kind: kind})
	}
	if bodies > 1 || bodies == 0 && !t.has(formPart) && !t.has(jsonPart) {
		return nil, errNoBody
	}
	return t, nil
}

func (t template) has(kind partKind) bool {
	for i := range t {
		if t[i].kind == kind {
			return true
		}
	}
	return false
}

// hashInto writes the signed content to mac and returns scratch for reuse. The short parts are
// gathered there, so that the hash sees two or three writes and no string escapes to the heap.
func (t template) hashInto(mac hash.Hash, scratch []byte, m *message) []byte {
	scratch = scratch[:0]
	for i := range t {
		if t[i].kind != bodyPart {
			scratch = t[i].appendTo(scratch, m)
			continue
		}
		if len(scratch) > 0 {
			mac.Write(scratch)
			scratch = scratch[:0]
		}
		mac.Write(m.body)
	}
	if len(scratch) > 0 {
		mac.Write(scratch)
	}
	return scratch
}

// appendTo appends the signed content to dst, for algorithms that need it in one piece.
func (t template) appendTo(dst []byte, m *message) []byte {
	for i := range t {
		dst = t[i].appendTo(dst, m)
	}
	return dst
}

func (p *part) appendTo(dst []byte, m *message) []byte {
	switch p.kind {
	case literal:
		return append(dst, p.text...)
	case idPart:
		return append(dst, m.id...)
	case timestampPart:
		return append(dst, m.timestamp...)
	case methodPart:
		return append(dst, m.method...)
	case urlPart:
		return append(dst, m.url...)
	case bodyPart:
		return append(dst, m.body...)
	case formPart:
		return append(dst, m.form...)
	case jsonPart:
		text, _, _ := p.path.OnlyText(m.body) // readContent has refused those with an error
		return append(dst, text...)
	}
	panic(fmt.Sprintf("signature: template part of unknown kind %d", p.kind))
}
