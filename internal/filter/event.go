package filter

import (
	"net/http"
	"strings"

	"cel.dev/cel-go/interpreter"
)

// Event is what expressions see of one webhook. It is made for one webhook, when the first destination asks with an
// expression, and is not safe for concurrent use.
type Event struct {
	eventType string
	header    http.Header
	body      []byte

	headers map[string]string
	payload any
	decoded bool
	failure error // why the payload cannot be shown
}

// NewEvent shows a webhook to expressions. It keeps header and body, and changes neither.
func NewEvent(eventType string, header http.Header, body []byte) *Event {
	return &Event{eventType: eventType, header: header, body: body}
}

// ResolveName is called by CEL for each name that the evaluation meets, and so only for what it needs.
func (e *Event) ResolveName(name string) (any, bool) {
	switch name {
	case nameEventType:
		return e.eventType, true
	case nameHeaders:
		if e.headers == nil {
			e.headers = firstValues(e.header)
		}
		return e.headers, true
	case namePayload:
		if !e.decoded {
			e.payload, e.failure = decode(e.body)
			e.decoded = true
		}
		// A payload beyond the bounds is not shown at all: the expression fails, and the event passes.
		return e.payload, e.failure == nil
	}
	return nil, false
}

// Parent is nil: there are no other names.
func (e *Event) Parent() interpreter.Activation { return nil }

// firstValues maps names in lower case to the first value of each.
func firstValues(header http.Header) map[string]string {
	values := make(map[string]string, len(header))
	for name, lines := range header {
		if len(lines) > 0 {
			values[strings.ToLower(name)] = strings.ToValidUTF8(lines[0], "\uFFFD")
		}
	}
	return values
}
