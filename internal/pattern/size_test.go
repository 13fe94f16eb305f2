package pattern

import (
	"regexp/syntax"
	"strings"
	"testing"
)

// It bounds what is compiled: it may be some times too much, and not far too little.
func TestSizeIsAboutThatOfTheProgram(t *testing.T) {
	for _, text := range []string{"", "a", "^[a-z]{2,64}$", "(a|b|c){100}", "((ab){10}c?){50}", "x*y+z?", strings.Repeat("a{1000}", 20), `\p{Greek}{500}`} {
		parsed, err := syntax.Parse(text, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		program, err := syntax.Compile(parsed.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		if got, real := Size(text), len(program.Inst); got*2 < real-4 || got > 5*real+5 {
			t.Errorf("%.40q: %d by the guess, %d in truth", text, got, real)
		}
	}
	if got := Size("a{1000}{1000}("); got != 0 {
		t.Errorf("what is no pattern has size %d", got)
	}
}
