// Package pattern tells what a regular expression costs before it is compiled.
package pattern

import "regexp/syntax"

// Size is about the number of instructions that a pattern (RE2) compiles to, with its repeats written out: 1500 characters can
// become a million and a half. What is no pattern has none: whoever compiles it refuses it.
func Size(text string) int {
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
