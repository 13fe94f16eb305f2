package filter

import (
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// What the estimate takes an event to be at most. A larger one is still evaluated, up to maxCost.
const (
	assumedElements = 100  // of a list, a map or an object
	assumedBytes    = 1000 // of a text
	// maxEstimate is above maxCost, since the estimate is of the worst case: it takes each of two nested loops, and refuses
	// a third one over the payload.
	maxEstimate = 10 * maxCost
)

// boundCost refuses an expression that would cost too much on an event of the assumed size.
func boundCost(env *cel.Env, checked *cel.Ast) error {
	estimate, err := env.EstimateCost(checked, assumedSizes{})
	if err != nil {
		return refuse("the expression's cost cannot be estimated: %s", oneLine(err.Error()))
	}
	if estimate.Max > maxEstimate {
		return refuse("the expression may cost %d on a payload with lists of %d elements, and at most %d is allowed: "+
			"nest fewer loops (all, exists, exists_one, map, filter), or test shorter texts", estimate.Max, assumedElements, maxEstimate)
	}
	return nil
}

// assumedSizes tells CEL's estimate how large the parts of an event are.
type assumedSizes struct{}

func (assumedSizes) EstimateSize(element checker.AstNode) *checker.SizeEstimate {
	most := uint64(assumedElements)
	if element.Type().IsExactType(cel.StringType) {
		most = assumedBytes
	}
	return &checker.SizeEstimate{Min: 0, Max: most}
}

func (assumedSizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil // as CEL estimates it
}

// deepCost charges comparisons for all that they may look at: CEL itself counts only the elements of the outermost list or
// map, so that comparing a payload with itself would be all but free.
type deepCost struct{}

func (deepCost) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	if function != operators.Equals && function != operators.NotEquals && function != operators.In {
		return nil
	}
	cost := uint64(1)
	for _, arg := range args {
		cost += deepSize(arg)
	}
	return &cost
}

// deepSize counts the values within a value, and ten bytes of a text as one.
func deepSize(value ref.Val) (size uint64) {
	switch v := value.(type) {
	case types.String:
		return uint64(len(v)) / 10
	case types.Bytes:
		return uint64(len(v)) / 10
	case traits.Mapper:
		for it := v.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			size += 1 + deepSize(key) + deepSize(v.Get(key))
		}
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True; {
			size += 1 + deepSize(it.Next())
		}
	}
	return size
}
