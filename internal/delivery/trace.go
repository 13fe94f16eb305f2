package delivery

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strings"

	"github.com/google/uuid"
)

// Bounds of tracestate (W3C Trace Context section 3.3).
const (
	maxTraceStateBytes   = 512
	maxTraceStateMembers = 32
)

const (
	traceparentBytes = len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	// Flags that are passed on: sampled, and random trace id. What later versions add must be cleared.
	knownTraceFlags = 0x03
)

// trace is where an attempt stands in a trace.
type trace struct {
	id     [16]byte
	parent [8]byte // the source's span; zero: there is none
	flags  byte
	state  string
}

// traceOf is the trace of an event: its source's, or without a valid one a trace of the event's own, whose id is the
// event's, so that all attempts of all its deliveries are in it. That one is marked as sampled: a receiver that follows the
// mark would otherwise record no delivery at all.
func traceOf(eventID uuid.UUID, lines []byte) trace {
	if bytes.Contains(lines, []byte("Traceparent: ")) {
		if parents := headerValues(lines, "Traceparent: "); len(parents) == 1 {
			if t, valid := parseTraceparent(parents[0]); valid {
				t.state = boundTraceState(headerValues(lines, "Tracestate: "))
				return t
			}
		}
	}
	return trace{id: eventID, flags: 1}
}

// headerValues are the values of the lines that begin so.
func headerValues(lines []byte, start string) []string {
	var values []string
	for line := range bytes.SplitSeq(lines, []byte("\r\n")) {
		if value, found := bytes.CutPrefix(line, []byte(start)); found {
			values = append(values, string(value))
		}
	}
	return values
}

// randomSpan is the id of a new span.
func randomSpan() (span [8]byte) {
	for value := rand.Uint64(); ; value = rand.Uint64() {
		if value != 0 { // which would be no id
			for i := range span {
				span[i] = byte(value >> (8 * i))
			}
			return span
		}
	}
}

// traceparent names a span of the trace: each attempt is one.
func (t trace) traceparent(span [8]byte) string {
	text := make([]byte, 0, traceparentBytes)
	text = append(text, "00-"...)
	text = hex.AppendEncode(text, t.id[:])
	text = append(text, '-')
	text = hex.AppendEncode(text, span[:])
	text = append(text, '-')
	text = hex.AppendEncode(text, []byte{t.flags})
	return string(text)
}

// parseTraceparent reads a traceparent of version 00, and of what a later version says the part that 00 has (W3C Trace
// Context section 3.2).
func parseTraceparent(text string) (trace, bool) {
	if len(text) < traceparentBytes || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return trace{}, false
	}
	var t trace
	var version, flags [1]byte
	if !decodeLowerHex(version[:], text[:2]) || !decodeLowerHex(t.id[:], text[3:35]) ||
		!decodeLowerHex(t.parent[:], text[36:52]) || !decodeLowerHex(flags[:], text[53:55]) {
		return trace{}, false
	}
	if version[0] == 0xff || version[0] == 0 && len(text) != traceparentBytes || len(text) > traceparentBytes && text[traceparentBytes] != '-' {
		return trace{}, false
	}
	if t.id == [16]byte{} || t.parent == [8]byte{} {
		return trace{}, false
	}
	t.flags = flags[0] & knownTraceFlags
	return t, true
}

// decodeLowerHex refuses capitals, as the specification does.
func decodeLowerHex(to []byte, text string) bool {
	if strings.ContainsAny(text, "ABCDEF") {
		return false
	}
	_, err := hex.Decode(to, []byte(text))
	return err == nil
}

// boundTraceState joins the lines of a tracestate and keeps the members at its front, the newest, that are within the
// bounds. Members that are none make the whole invalid: it is left out.
func boundTraceState(values []string) string {
	var kept strings.Builder
	members := 0
	for member := range strings.SplitSeq(strings.Join(values, ","), ",") {
		member = strings.Trim(member, " \t")
		if member == "" {
			continue // allowed, and says nothing
		}
		if name, value, found := strings.Cut(member, "="); !found || name == "" || value == "" || !printable(member) {
			return ""
		}
		if members++; members > maxTraceStateMembers || kept.Len()+1+len(member) > maxTraceStateBytes {
			break
		}
		if kept.Len() > 0 {
			kept.WriteByte(',')
		}
		kept.WriteString(member)
	}
	return kept.String()
}

func printable(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}
