package schema

import (
	"encoding/json"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// plan says, for each schema of a document, what a value that meets it is checked against.
type plan map[*jsonschema.Schema]*step

type step struct {
	own       int                  // what the schema checks by itself
	pattern   int                  // of that, for a text's pattern
	patterns  int                  // of that, for the patterns of members' names
	samePlace []*jsonschema.Schema // look at the same value
	members   []*jsonschema.Schema // look at every member, or may
	names     []*jsonschema.Schema // look at the names of members
	elements  []*jsonschema.Schema // look at every element, or may
}

func newPlan(weights map[*jsonschema.Schema]int) plan {
	p := make(plan, len(weights))
	for s := range weights {
		of := &step{own: ownWeight(s), pattern: textWeight(s), patterns: nameWeight(s), samePlace: samePlace(s), names: collect(s.PropertyNames)}
		of.members = append(collect(s.UnevaluatedProperties), anyOf(s.AdditionalProperties)...)
		for _, part := range s.PatternProperties {
			of.members = append(of.members, part)
		}
		of.elements = append(collect(s.Items2020, s.Contains, s.UnevaluatedItems), anyOf(s.AdditionalItems)...)
		if every, ok := s.Items.(*jsonschema.Schema); ok {
			of.elements = append(of.elements, every)
		}
		p[s] = of
	}
	return p
}

// work counts the checks that validation makes at most, down from budget: as if each part was met, and each pattern
// matched. It is much cheaper than validation, and stops when nothing is left of the budget.
func (p plan) work(s *jsonschema.Schema, value any, budget int) int {
	of := p[s]
	budget -= of.own
	for _, part := range of.samePlace {
		if budget < 0 {
			return budget
		}
		budget = p.work(part, value, budget)
	}
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			if part := s.Properties[name]; part != nil {
				budget = p.work(part, member, budget)
			}
			budget -= of.patterns * (1 + len(name)/bytesPerValue)
			budget = p.all(of.names, name, budget)
			if budget = p.all(of.members, member, budget-1); budget < 0 {
				return budget
			}
		}
	case []any:
		byPlace := s.PrefixItems
		if places, ok := s.Items.([]*jsonschema.Schema); ok {
			byPlace = places
		}
		for i, element := range v {
			if i < len(byPlace) {
				budget = p.work(byPlace[i], element, budget)
			}
			if budget = p.all(of.elements, element, budget-1); budget < 0 {
				return budget
			}
		}
	case string:
		budget -= (1 + of.pattern) * (len(v) / bytesPerValue)
	case json.Number:
		budget -= of.own * (len(v) / bytesPerValue) // an enum reads it again for each of its values
	}
	return budget
}

func (p plan) all(parts []*jsonschema.Schema, value any, budget int) int {
	for _, part := range parts {
		if budget < 0 {
			return budget
		}
		budget = p.work(part, value, budget)
	}
	return budget
}
