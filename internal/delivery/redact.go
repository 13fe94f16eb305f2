package delivery

import (
	"bytes"
	"net/http"
	"slices"
	"strings"

	"github.com/kapsel-dev/kapsel/internal/route"
)

// Values below this length are no credentials, and could stand in an answer for any reason.
const minCredentialBytes = 8

// credentialsIn are the values in the headers of a request that authorize it: static headers of the destination, its token. The
// longest first. Nil for a destination that asks for none.
func credentialsIn(header http.Header, d *route.Destination) (values []string) {
	if len(d.Headers) == 0 && d.ClientCredentials == nil {
		return nil
	}
	add := func(value string) {
		if len(value) >= minCredentialBytes {
			values = append(values, value)
		}
	}
	sent := header["Authorization"]
	for _, static := range d.Headers {
		sent = append(sent[:len(sent):len(sent)], static...)
	}
	for _, value := range sent {
		add(value)
		if _, credential, found := strings.Cut(value, " "); found { // after its scheme: Bearer, Basic
			add(credential)
		}
	}
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	return values
}

// excerptOf is the beginning of an answer, which is stored and shown to whoever may read. Destinations that repeat what they
// were sent would put their credentials there.
func excerptOf(data []byte, credentials []string) []byte {
	if len(credentials) == 0 {
		return data[:min(len(data), maxExcerptBytes)]
	}
	// One that begins in the excerpt may end behind it.
	excerpt := bytes.Clone(data[:min(len(data), maxExcerptBytes+len(credentials[0]))])
	for _, credential := range credentials {
		excerpt = bytes.ReplaceAll(excerpt, []byte(credential), []byte("[redacted]"))
	}
	return excerpt[:min(len(excerpt), maxExcerptBytes)]
}
