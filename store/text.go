package store

import "strings"

// CleanText makes any text fit for a text column: valid UTF-8, without NUL, of at most maxBytes before what is not valid
// was replaced.
func CleanText(s string, maxBytes int) string {
	if len(s) > maxBytes {
		s = s[:maxBytes]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
