package server

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// plainHead is the head of a request of the plain form that quickServer takes.
type plainHead struct {
	path          string
	host          string
	header        http.Header
	contentLength int
}

const (
	plainStart   = "POST " + ingestPath
	plainVersion = " HTTP/1.1"
	lineEnd      = "\r\n"
)

// parsePlainHead reads a head, from the request line to the line end of the last field. It accepts less than RFC 9112
// allows, and what it accepts it reads as net/http does: ok is false for all that is not of the plain form, valid or not.
func parsePlainHead(head string) (h plainHead, ok bool) {
	line, fields, _ := strings.Cut(head, lineEnd)
	target, plain := strings.CutSuffix(line, plainVersion)
	if !plain || !strings.HasPrefix(target, plainStart) || !plainSegment(target[len(plainStart):]) {
		return h, false
	}
	h.path = target[len("POST "):]
	h.contentLength = -1
	lines := strings.Count(fields, "\n")
	h.header = make(http.Header, lines)
	values := make([]string, lines)
	for fields != "" {
		var name, value string
		line, fields, _ = strings.Cut(fields, lineEnd)
		name, value, plain = strings.Cut(line, ":")
		if !plain || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return h, false
		}
		value = textproto.TrimString(value)
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch name {
		case "Host":
			if h.host != "" || value == "" || !httpguts.ValidHostHeader(value) {
				return h, false
			}
			h.host = value
			continue
		case "Content-Length":
			length, err := strconv.ParseUint(value, 10, 31)
			if err != nil || h.contentLength >= 0 {
				return h, false
			}
			h.contentLength = int(length)
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return h, false
			}
		case "Transfer-Encoding", "Expect", "Upgrade", "Trailer", "Pragma":
			return h, false
		}
		if earlier := h.header[name]; earlier != nil {
			h.header[name] = append(earlier, value)
			continue
		}
		values[0] = value
		h.header[name] = values[:1:1]
		values = values[1:]
	}
	return h, h.host != "" && h.contentLength >= 0
}

// plainSegment reports whether text is one path segment that means itself, without escapes and dots.
func plainSegment(text string) bool {
	for i := range len(text) {
		c := text[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c == '_' || c == '-') {
			return false
		}
	}
	return text != ""
}
