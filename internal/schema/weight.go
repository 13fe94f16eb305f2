package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kapsel-dev/kapsel/internal/pattern"
)

// Bounds of a number: the exponent of the largest float64, and a length that every float64 fits into. Numbers are compared as
// fractions, which a huge exponent would fill memory with; what a long one takes grows with the square of its length, and from a
// million digits on the library panics.
const (
	maxExponent    = 308
	maxNumberBytes = 1024
)

// bytesPerValue has a long text or number count as several values, for what patterns and fractions cost.
const bytesPerValue = 64

// count counts the values of a document. It reports false if a number is out of bounds.
func count(value any) (n int, ok bool) {
	n = 1
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			of, ok := count(member)
			if !ok {
				return 0, false
			}
			n += of + len(name)/bytesPerValue
		}
	case []any:
		for _, element := range v {
			of, ok := count(element)
			if !ok {
				return 0, false
			}
			n += of
		}
	case string:
		n += len(v) / bytesPerValue
	case json.Number:
		if len(v) > maxNumberBytes {
			return 0, false
		}
		if i := strings.IndexAny(v.String(), "eE"); i >= 0 {
			exponent, err := strconv.Atoi(v.String()[i+1:])
			if err != nil || exponent > maxExponent || exponent < -maxExponent {
				return 0, false
			}
		}
		n += len(v) / bytesPerValue
	}
	return n, true
}

var errDynamic = errors.New("schema uses $dynamicRef or $recursiveRef, whose cost is not known beforehand: use $ref")

// scale weighs a schema with its references written out. It ends, since it refuses those that refer to themselves.
type scale struct {
	weights map[*jsonschema.Schema]int // 0: being weighed
}

func (s scale) weigh(schema *jsonschema.Schema) (int, error) {
	if weight, seen := s.weights[schema]; seen {
		if weight == 0 {
			return 0, fmt.Errorf("schema refers to itself at %s: write out as many levels as payloads have", where(strings.TrimPrefix(schema.Location, place)))
		}
		return weight, nil
	}
	if schema.DynamicRef != nil || schema.RecursiveRef != nil {
		return 0, errDynamic
	}
	schema.Format = nil // which the library asserts in draft-07 and before it
	s.weights[schema] = 0
	weight := ownWeight(schema)
	for _, part := range append(samePlace(schema), elsewhere(schema)...) {
		of, err := s.weigh(part)
		if err != nil {
			return 0, err
		}
		if weight += of; weight > maxWeight {
			return 0, fmt.Errorf("schema is over %d in size with its references written out", maxWeight)
		}
	}
	s.weights[schema] = weight
	return weight, nil
}

// ownWeight is what a schema checks without its parts.
func ownWeight(s *jsonschema.Schema) int {
	weight := 1 + len(s.Required)
	weight += textWeight(s) + nameWeight(s)
	if s.Enum != nil {
		values, _ := count(s.Enum.Values)
		weight += values
	}
	if s.Const != nil {
		values, _ := count(*s.Const)
		weight += values
	}
	return weight
}

// textWeight is what a schema's pattern costs beyond one check.
func textWeight(s *jsonschema.Schema) int {
	if s.Pattern == nil {
		return 0
	}
	return pattern.Size(s.Pattern.String()) / sizePerWeight
}

// nameWeight is what a schema's patterns for names cost each name.
func nameWeight(s *jsonschema.Schema) (weight int) {
	for expression := range s.PatternProperties {
		weight += 1 + pattern.Size(expression.String())/sizePerWeight
	}
	return weight
}

// samePlace are the parts that look at the same value as the schema, each as often as it does.
func samePlace(s *jsonschema.Schema) []*jsonschema.Schema {
	parts := collect(s.Ref, s.Not, s.If, s.Then, s.Else)
	parts = append(append(append(parts, s.AllOf...), s.AnyOf...), s.OneOf...)
	for _, part := range s.DependentSchemas {
		parts = append(parts, part)
	}
	for _, part := range s.Dependencies {
		parts = append(parts, anyOf(part)...)
	}
	return parts
}

// elsewhere are the parts that look at what the value holds.
func elsewhere(s *jsonschema.Schema) []*jsonschema.Schema {
	parts := collect(s.PropertyNames, s.Contains, s.Items2020, s.UnevaluatedProperties, s.UnevaluatedItems, s.ContentSchema)
	for _, value := range []any{s.AdditionalProperties, s.Items, s.AdditionalItems} {
		parts = append(parts, anyOf(value)...)
	}
	parts = append(parts, s.PrefixItems...)
	for _, part := range s.Properties {
		parts = append(parts, part)
	}
	for _, part := range s.PatternProperties {
		parts = append(parts, part)
	}
	return parts
}

func collect(all ...*jsonschema.Schema) (parts []*jsonschema.Schema) {
	for _, part := range all {
		if part != nil {
			parts = append(parts, part)
		}
	}
	return parts
}

// anyOf are the schemas in a field that may hold something else too.
func anyOf(value any) []*jsonschema.Schema {
	switch v := value.(type) {
	case *jsonschema.Schema:
		return collect(v)
	case []*jsonschema.Schema:
		return v
	}
	return nil
}
