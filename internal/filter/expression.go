package filter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
)

const (
	// maxCost of one evaluation, in CEL's units: about one a step or ten bytes of text that are looked at. Some ten
	// milliseconds at worst.
	maxCost = 100_000
	// maxTime of one evaluation. Cost is what bounds it: this is for what CEL counts too low, and far beyond what a busy
	// machine delays a short one by.
	maxTime = time.Second
	// checkEvery so many steps of a loop, the time is looked at.
	checkEvery = 100
)

// expression is a compiled CEL expression.
type expression struct {
	text    string
	program cel.Program
	loops   bool // it has a loop (all, exists, map, filter), the only thing that can run for long
}

// evaluate runs the expression on an event. Its result stands only without an error.
func (x *expression) evaluate(event *Event) (met bool, err error) {
	// CEL turns panics of its own functions into errors. This is for those of its values.
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panic: %v", panicked)
		}
	}()
	var result any
	if x.loops {
		ctx, cancel := context.WithTimeout(context.Background(), maxTime)
		defer cancel()
		value, _, failure := x.program.ContextEval(ctx, event)
		if failure != nil {
			return false, failure
		}
		result = value.Value()
	} else {
		value, _, failure := x.program.Eval(event)
		if failure != nil {
			return false, failure
		}
		result = value.Value()
	}
	met, isBool := result.(bool)
	if !isBool {
		return false, errors.New("the result is not a bool")
	}
	return met, nil
}

// hasLoop reports whether a checked expression loops.
func hasLoop(checked *cel.Ast) bool {
	loops := false
	ast.PostOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		loops = loops || e.Kind() == ast.ComprehensionKind
	}))
	return loops
}
