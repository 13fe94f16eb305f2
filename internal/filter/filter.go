// Package filter decides which of an endpoint's events a destination gets: by event type, and by an expression in CEL
// (the Common Expression Language, cel.dev) over the event's type, headers and payload.
//
// Filters are compiled once, with the route snapshot, and asked by intake for each webhook. Their invariants: an expression
// that fails on an event lets it pass, so that nothing is lost by a mistake; what an expression may cost is bounded when it
// is compiled and again each time it runs; a payload is decoded at most once an event, and only if an expression reads it.
// The package is pure and imports nothing of ours.
package filter

import (
	"slices"
	"strings"
)

// Filter is what a destination gets: events that match one of its types and meet its expression. It is immutable, and safe
// for concurrent use.
type Filter struct {
	types      []string
	prefixes   []string // of the types that end in "*"
	expression *expression
}

// New compiles a filter. Event types that end in "*" stand for all that begin so; none means all. An empty expression is
// met by all events. An error is an *ExpressionError.
func New(eventTypes []string, expression string) (*Filter, error) {
	f := Types(eventTypes)
	if expression == "" {
		return f, nil
	}
	var err error
	f.expression, err = compile(expression)
	return f, err
}

// Types makes a filter without an expression.
func Types(eventTypes []string) *Filter {
	f := new(Filter)
	for _, eventType := range eventTypes {
		if prefix, open := strings.CutSuffix(eventType, "*"); open {
			f.prefixes = append(f.prefixes, prefix)
		} else {
			f.types = append(f.types, eventType)
		}
	}
	return f
}

// With makes a filter of other event types and f's expression, which is not compiled again.
func (f *Filter) With(eventTypes []string) *Filter {
	changed := Types(eventTypes)
	changed.expression = f.expression
	return changed
}

// Expression is the text that was compiled, "" for none.
func (f *Filter) Expression() string {
	if f.expression == nil {
		return ""
	}
	return f.expression.text
}

// MatchesType reports whether an event type is one of the filter's.
func (f *Filter) MatchesType(eventType string) bool {
	if len(f.types)+len(f.prefixes) == 0 || slices.Contains(f.types, eventType) {
		return true
	}
	for _, prefix := range f.prefixes {
		if strings.HasPrefix(eventType, prefix) {
			return true
		}
	}
	return false
}

// HasExpression reports whether an event must be shown to Meets as well.
func (f *Filter) HasExpression() bool { return f.expression != nil }

// Meets reports whether the event meets the expression. It does when there is none, and when the expression fails on it.
func (f *Filter) Meets(event *Event) bool {
	if f.expression == nil {
		return true
	}
	met, err := f.expression.evaluate(event)
	return met || err != nil
}
