package filter

import (
	"fmt"
	"regexp/syntax"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"

	"github.com/kapsel-dev/kapsel/internal/pattern"
)

// maxPatternProgram bounds the instructions of a compiled regular expression: what it takes of memory, and of time for
// each character. Repeats such as a{1000} are what makes it long.
const maxPatternProgram = 1000

// safeToCompile is how many instructions a pattern may have by a guess to be compiled at all: some hundred KiB.
const safeToCompile = 10 * maxPatternProgram

// boundRepeats refuses regular expressions that are too large to be compiled, of an expression that was only parsed.
func boundRepeats(parsed *cel.Ast) error {
	return eachPattern(parsed, func(place string, of ast.Expr) error {
		text, _ := of.AsLiteral().(types.String)
		if size := pattern.Size(string(text)); size > safeToCompile {
			return tooLarge(place, size)
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
