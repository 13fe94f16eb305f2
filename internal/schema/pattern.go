package schema

import (
	"fmt"

	"github.com/kapsel-dev/kapsel/internal/pattern"
)

// maxPatternSize bounds the instructions of a schema's regular expressions all together: some 2 MiB. Repeats are what makes them
// many, since those are written out when a pattern is compiled: 1500 characters become 64 MiB.
const maxPatternSize = 50_000

// sizePerWeight is how many instructions of a pattern count as one check for each stretch of a text: what may be under way at each
// character.
const sizePerWeight = 64

// checkPatterns refuses a document whose patterns are too large, before they are compiled. It looks wherever there may be a schema.
func checkPatterns(document any) error {
	if patternsOf(document) > maxPatternSize {
		return fmt.Errorf("the patterns of the schema have over %d steps with their repeats written out: shorten the repeats", maxPatternSize)
	}
	return nil
}

func patternsOf(value any) (size int) {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			if text, ok := member.(string); ok && name == "pattern" {
				size += pattern.Size(text)
			}
			if members, ok := member.(map[string]any); ok && name == "patternProperties" {
				for text := range members {
					size += pattern.Size(text)
				}
			}
			size += patternsOf(member)
		}
	case []any:
		for _, element := range v {
			size += patternsOf(element)
		}
	}
	return size
}
