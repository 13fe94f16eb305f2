package schema

import (
	"fmt"
	"regexp/syntax"
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
				size += patternSize(text)
			}
			if members, ok := member.(map[string]any); ok && name == "patternProperties" {
				for pattern := range members {
					size += patternSize(pattern)
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

// patternSize is about the number of instructions that a pattern compiles to. What is no pattern has none: the compiler refuses it.
func patternSize(text string) int {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return 0
	}
	return sizeOf(parsed)
}

func sizeOf(re *syntax.Regexp) int {
	size := 1 + len(re.Sub)
	for _, sub := range re.Sub {
		size += sizeOf(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		size += len(re.Rune)
	case syntax.OpRepeat:
		size *= max(re.Min, re.Max, 1) // package syntax takes 1000 at most, nested ones together
	}
	return size
}
