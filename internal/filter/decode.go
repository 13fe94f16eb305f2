package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// Bounds of a payload that is shown to expressions.
const (
	maxDepth = 64
	// A decoded value takes up to about 100 bytes. So a payload takes at most some twelve times its length, and some 100 KiB,
	// while its destinations are found.
	freeValues     = 1000
	bytesEachValue = 8
)

var errBeyondBounds = errors.New("the payload is nested too deep, has too many values for its length, or a number beyond all bounds")

// decode reads a payload as JSON (RFC 8259); what is not JSON is null. A number is an int when it is written as one and
// fits 64 bits, so that long ids are compared exactly, else a double. Of repeated members the last counts.
func decode(body []byte) (any, error) {
	d := decoder{tokens: json.NewDecoder(bytes.NewReader(body)), left: freeValues + len(body)/bytesEachValue}
	d.tokens.UseNumber()
	value, err := d.value(0)
	if err == nil {
		if _, extra := d.tokens.Token(); extra != io.EOF {
			return nil, nil // more than one value
		}
		return value, nil
	}
	if errors.Is(err, errBeyondBounds) {
		return nil, err
	}
	return nil, nil
}

type decoder struct {
	tokens *json.Decoder
	left   int // values that may still come
}

func (d *decoder) value(depth int) (any, error) {
	if d.left--; d.left < 0 || depth > maxDepth {
		return nil, errBeyondBounds
	}
	token, err := d.tokens.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Number:
		return number(t)
	case json.Delim:
		if t == '{' {
			return d.object(depth)
		}
		return d.array(depth)
	}
	return token, nil
}

func (d *decoder) object(depth int) (any, error) {
	members := make(map[string]any)
	for d.tokens.More() {
		name, err := d.tokens.Token()
		if err != nil {
			return nil, err
		}
		value, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		members[name.(string)] = value // the decoder takes nothing else for a name
	}
	_, err := d.tokens.Token()
	return members, err
}

func (d *decoder) array(depth int) (any, error) {
	elements := []any{}
	for d.tokens.More() {
		value, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		elements = append(elements, value)
	}
	_, err := d.tokens.Token()
	return elements, err
}

func number(text json.Number) (any, error) {
	if i, err := text.Int64(); err == nil {
		return i, nil
	}
	f, err := text.Float64()
	if err != nil {
		return nil, errBeyondBounds
	}
	return f, nil
}
