package verify

import (
	"bytes"
	"encoding/json"
)

// encodeJSON writes v as ECMAScript's JSON.stringify would, so that verifiers in other languages can demand the same
// bytes: encoding/json differs from it by escaping HTML, which can be switched off, and the two line separators, which
// cannot. There is a newline at the end.
func encodeJSON(v any, indent string) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return unescapeSeparators(out.Bytes()), nil
}

// nestsDeeper reports whether JSON has lists and objects in one another more than limit deep. Indented, each line of such a
// text is as long as it is deep: a small file could become gigabytes.
func nestsDeeper(data []byte, limit int) bool {
	depth, inText := 0, false
	for i := 0; i < len(data); i++ {
		switch b := data[i]; {
		case inText && b == '\\':
			i++ // whatever is escaped
		case b == '"':
			inText = !inText
		case inText:
		case b == '[' || b == '{':
			if depth++; depth > limit {
				return true
			}
		case b == ']' || b == '}':
			depth--
		}
	}
	return false
}

// unescapeSeparators turns the escapes of U+2028 and U+2029 into the characters.
func unescapeSeparators(data []byte) []byte {
	if !bytes.Contains(data, []byte(`\u202`)) {
		return data
	}
	out := make([]byte, 0, len(data))
	for i := 0; i < len(data); {
		switch rest := data[i:]; {
		case bytes.HasPrefix(rest, []byte(`\u2028`)):
			out, i = append(out, "\u2028"...), i+6
		case bytes.HasPrefix(rest, []byte(`\u2029`)):
			out, i = append(out, "\u2029"...), i+6
		case rest[0] == '\\': // two characters that belong together, such as an escaped backslash
			out, i = append(out, rest[:2]...), i+2
		default:
			out, i = append(out, rest[0]), i+1
		}
	}
	return out
}
