package filter

import (
	"fmt"
	"regexp/syntax"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
)

// maxPatternProgram bounds the instructions of a compiled regular expression: what it takes of memory, and of time for
// each character. Repeats such as a{1000} are what makes it long.
const maxPatternProgram = 1000

// safeToCompile is how many instructions a pattern may have by a guess to be compiled at all: some hundred KiB. 1500 characters can
// have a million and a half.
const safeToCompile = 10 * maxPatternProgram

// boundRepeats refuses regular expressions that are too large to be compiled, of an expression that was only parsed.
func boundRepeats(parsed *cel.Ast) error {
	return eachPattern(parsed, func(place string, pattern ast.Expr) error {
		text, _ := pattern.AsLiteral().(types.String)
		if tree, err := syntax.Parse(string(text), syntax.Perl); err == nil && guess(tree) > safeToCompile {
			return tooLarge(place, guess(tree))
		}
		return nil
	})
}

// boundPatterns refuses regular expressions that are not known yet, which a payload would choose and each event would have
// to compile, and those that are too large.
func boundPatterns(checked *cel.Ast) error {
	return eachPattern(checked, func(place string, pattern ast.Expr) error {
		if pattern.Kind() != ast.LiteralKind {
			return refuse("%s: the pattern of matches must be a literal text", place)
		}
		text, _ := pattern.AsLiteral().(types.String)
		if size := programSize(string(text)); size > maxPatternProgram {
			return tooLarge(place, size)
		}
		return nil
	})
}

func tooLarge(place string, size int) error {
	return refuse("%s: the pattern compiles to %d instructions: shorten its repeats to at most %d", place, size, maxPatternProgram)
}

// eachPattern calls check for the pattern of each call of matches, with its place, until it returns an error.
func eachPattern(of *cel.Ast, check func(place string, pattern ast.Expr) error) error {
	var refused error
	info := of.NativeRep().SourceInfo()
	ast.PostOrderVisit(of.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if refused != nil || e.Kind() != ast.CallKind || e.AsCall().FunctionName() != overloads.Matches || len(e.AsCall().Args()) == 0 {
			return
		}
		args := e.AsCall().Args()
		pattern := args[len(args)-1] // of text.matches(pattern) and of matches(text, pattern)
		at := info.GetStartLocation(pattern.ID())
		refused = check(fmt.Sprintf("line %d, column %d", at.Line(), at.Column()+1), pattern)
	}))
	return refused
}

// guess is about the number of instructions of a pattern whose repeats are not written out yet.
func guess(re *syntax.Regexp) int {
	size := 1 + len(re.Sub)
	for _, sub := range re.Sub {
		size += guess(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		size += len(re.Rune)
	case syntax.OpRepeat:
		size *= max(re.Min, re.Max, 1) // package syntax takes 1000 at most, nested ones together
	}
	return size
}

// programSize of a pattern that is known to be valid.
func programSize(pattern string) int {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0
	}
	return len(program.Inst)
}
