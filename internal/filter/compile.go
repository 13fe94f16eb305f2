package filter

import (
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
)

// MaxExpressionBytes is the longest expression, as the contract says.
const MaxExpressionBytes = 4096

// Bounds of an expression's form, beyond what a filter needs. They keep compiling short and its stack low.
const (
	maxExpressionNodes = 2000 // with what macros expand to
	maxNesting         = 50
	maxLoopNesting     = 3
	maxReportedErrors  = 3
)

// ExpressionError says why an expression is refused, where, and what to do.
type ExpressionError struct{ message string }

func (e *ExpressionError) Error() string { return e.message }

func refuse(format string, args ...any) *ExpressionError {
	return &ExpressionError{message: fmt.Sprintf(format, args...)}
}

// The names that expressions see.
const (
	nameEventType = "event_type"
	nameHeaders   = "headers"
	namePayload   = "payload"
)

// environment is what expressions are checked against. It is made of constants alone, once, when the first one is compiled.
var environment = sync.OnceValue(func() *cel.Env {
	env, err := cel.NewEnv(
		cel.Variable(nameEventType, cel.StringType),
		cel.Variable(nameHeaders, cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable(namePayload, cel.DynType),
		cel.CrossTypeNumericComparisons(true), // JSON has one kind of number
		cel.DefaultUTCTimeZone(true),
		cel.EnableMacroCallTracking(),
		cel.ParserExpressionSizeLimit(MaxExpressionBytes),
		cel.ParserRecursionLimit(maxNesting),
		cel.ParserErrorRecoveryLimit(maxReportedErrors),
		cel.ExpressionNodeLimit(maxExpressionNodes),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(),
			cel.ValidateComprehensionNestingLimit(maxLoopNesting),
		),
	)
	if err != nil {
		panic(fmt.Sprintf("the environment of filter expressions: %v", err)) // constants that contradict each other
	}
	return env
})

// compile checks an expression and bounds its cost. Errors are *ExpressionError.
func compile(text string) (compiled *expression, err error) {
	// Expressions come from anyone who may make a destination: a fault of the compiler must not stop the node.
	defer func() {
		if panicked := recover(); panicked != nil {
			compiled, err = nil, refuse("the expression cannot be compiled: write it in another way")
		}
	}()
	if len(text) > MaxExpressionBytes {
		return nil, refuse("the expression has %d bytes: shorten it to at most %d", len(text), MaxExpressionBytes)
	}
	env := environment()
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil, explain(issues)
	}
	if err := boundRepeats(parsed); err != nil { // the check compiles patterns
		return nil, err
	}
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, explain(issues)
	}
	if output := checked.OutputType(); !output.IsExactType(cel.BoolType) {
		if output.IsExactType(cel.DynType) {
			return nil, refuse("the expression's type is only known for each event: compare it, such as (%s) == true", shorten(text))
		}
		return nil, refuse("the expression is of type %s: make it a bool, such as by a comparison", cel.FormatCELType(output))
	}
	if err := boundPatterns(checked); err != nil {
		return nil, err
	}
	if err := boundCost(env, checked); err != nil {
		return nil, err
	}
	program, err := env.Program(checked,
		cel.EvalOptions(cel.OptOptimize),
		cel.CostLimit(maxCost), cel.CostTracking(deepCost{}),
		cel.InterruptCheckFrequency(checkEvery),
	)
	if err != nil {
		return nil, refuse("the expression cannot be run: %s", oneLine(err.Error()))
	}
	return &expression{text: text, program: program, loops: hasLoop(checked)}, nil
}

// explain lists the first issues with their places.
func explain(issues *cel.Issues) *ExpressionError {
	var places []string
	undeclared := false
	for i, issue := range issues.Errors() {
		if i == maxReportedErrors {
			break
		}
		message := oneLine(issue.Message)
		undeclared = undeclared || strings.Contains(message, "undeclared reference")
		if issue.Location.Line() < 1 {
			places = append(places, message)
			continue
		}
		// Columns count from 0 in CEL, and from 1 for people.
		places = append(places, fmt.Sprintf("line %d, column %d: %s", issue.Location.Line(), issue.Location.Column()+1, message))
	}
	advice := ""
	if undeclared {
		advice = "; expressions see event_type, headers and payload, and the standard functions of CEL"
	}
	return refuse("the expression does not compile: %s%s", strings.Join(places, "; "), advice)
}

// oneLine keeps what a foreign message says and leaves out its drawings and length.
func oneLine(message string) string {
	message, _, _ = strings.Cut(message, "\n")
	return shorten(message)
}

func shorten(text string) string {
	const most = 200
	if len(text) <= most {
		return strings.ToValidUTF8(text, "\uFFFD")
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
