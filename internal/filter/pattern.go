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

// boundPatterns refuses regular expressions that are not known yet, which a payload would choose and each event would have
// to compile, and those that are too large.
func boundPatterns(checked *cel.Ast) error {
	var refused error
	info := checked.NativeRep().SourceInfo()
	ast.PostOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if refused != nil || e.Kind() != ast.CallKind || e.AsCall().FunctionName() != overloads.Matches {
			return
		}
		args := e.AsCall().Args()
		pattern := args[len(args)-1] // of text.matches(pattern) and of matches(text, pattern)
		at := info.GetStartLocation(pattern.ID())
		place := fmt.Sprintf("line %d, column %d", at.Line(), at.Column()+1)
		if pattern.Kind() != ast.LiteralKind {
			refused = refuse("%s: the pattern of matches must be a literal text", place)
			return
		}
		text, _ := pattern.AsLiteral().(types.String)
		if size := programSize(string(text)); size > maxPatternProgram {
			refused = refuse("%s: the pattern compiles to %d instructions: shorten its repeats to at most %d", place, size, maxPatternProgram)
		}
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
