package signature

import (
	"errors"
	"fmt"
	"hash"
	"strings"
)

// template is a compiled Preset.Content: literals and placeholders in order.
type template []part

type part struct {
	kind partKind
	text string // of a literal
}

type partKind uint8

const (
	literal partKind = iota
	idPart
	timestampPart
	bodyPart
)

var placeholders = map[string]partKind{"id": idPart, "timestamp": timestampPart, "body": bodyPart}

var errNoBody = errors.New("signed content must hold {body} exactly once")

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
		kind, known := placeholders[name]
		if !known {
			return nil, fmt.Errorf("signed content: {%s} is none of {id}, {timestamp}, {body}", name)
		}
		if kind == bodyPart {
			bodies++
		}
		t = append(t, part{kind: kind})
		rest = tail
	}
	if bodies != 1 {
		return nil, errNoBody
	}
	return t, nil
}

func (t template) has(kind partKind) bool {
	for _, p := range t {
		if p.kind == kind {
			return true
		}
	}
	return false
}

// hashInto writes the signed content to mac and returns scratch for reuse. The short parts are
// gathered there, so that the hash sees two or three writes and no string escapes to the heap.
func (t template) hashInto(mac hash.Hash, scratch []byte, id, timestamp string, body []byte) []byte {
	scratch = scratch[:0]
	for _, p := range t {
		if p.kind != bodyPart {
			scratch = p.appendTo(scratch, id, timestamp, nil)
			continue
		}
		if len(scratch) > 0 {
			mac.Write(scratch)
			scratch = scratch[:0]
		}
		mac.Write(body)
	}
	if len(scratch) > 0 {
		mac.Write(scratch)
	}
	return scratch
}

// appendTo appends the signed content to dst, for algorithms that need it in one piece.
func (t template) appendTo(dst []byte, id, timestamp string, body []byte) []byte {
	for _, p := range t {
		dst = p.appendTo(dst, id, timestamp, body)
	}
	return dst
}

func (p part) appendTo(dst []byte, id, timestamp string, body []byte) []byte {
	switch p.kind {
	case literal:
		return append(dst, p.text...)
	case idPart:
		return append(dst, id...)
	case timestampPart:
		return append(dst, timestamp...)
	case bodyPart:
		return append(dst, body...)
	}
	panic(fmt.Sprintf("signature: template part of unknown kind %d", p.kind))
}
