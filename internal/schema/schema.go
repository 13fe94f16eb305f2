// Package schema checks JSON payloads against the JSON Schema that an endpoint may have (draft 2020-12, or another that its
// $schema names).
//
// A schema comes from a tenant and a payload from a source: neither can be trusted not to make validation expensive.
// So what one payload can cost is counted before it is validated. A schema may not refer to itself, which makes it a tree of
// bounded size, and the checks that it asks of a payload are bounded. Nothing is ever fetched. What a payload holds is not quoted, only where it
// is wrong, and by which keyword.
package schema

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const (
	// MaxTextBytes bounds a schema's text.
	MaxTextBytes = 64 << 10
	// maxWeight bounds a schema's size with all its references written out.
	maxWeight = 10_000
	// maxWork bounds the checks of one payload: about half a second.
	maxWork = 500_000
	// maxDetailWork is the same for saying where a payload is wrong, which holds each violation of each branch in
	// memory: some 20 MiB.
	maxDetailWork = 50_000
	// maxShown is how many violations a defect names, and maxPlaceBytes how much of each one's place.
	maxShown      = 3
	maxPlaceBytes = 120
)

// Schema is a compiled schema. It is safe for concurrent use.
type Schema struct {
	text     string
	compiled *jsonschema.Schema
	// violated is met by what does not meet compiled. It stops at the first violation, and keeps none.
	violated *jsonschema.Schema
	plan     plan
	// detail has one payload of the endpoint at a time described.
	detail sync.Mutex
}

// place names the schema in errors and begins the places of its parts.
const (
	place         = "urn:schema"
	violatedPlace = "urn:violated"
)

// notChecked is the defect of a payload at which validation itself fails.
const notChecked = "payload cannot be checked against its schema"

// errFetch refuses a $ref or $schema to elsewhere.
var errFetch = errors.New("other documents are not fetched: put the definition under $defs")

type noLoader struct{}

func (noLoader) Load(string) (any, error) { return nil, errFetch }

// Compile compiles a schema. Its errors say what to change.
func Compile(text string) (*Schema, error) {
	if len(text) > MaxTextBytes {
		return nil, fmt.Errorf("schema is %d bytes long: at most %d may be", len(text), MaxTextBytes)
	}
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("schema is not JSON: %w", err)
	}
	if values, ok := count(document); !ok || values > maxWeight {
		return nil, fmt.Errorf("schema holds a number beyond 1e±%d or of over %d characters, or over %d values", maxExponent, maxNumberBytes, maxWeight)
	}
	if err := checkPatterns(document); err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(noLoader{})
	if err := compiler.AddResource(place, document); err != nil {
		return nil, fmt.Errorf("schema: %w", plain(err))
	}
	compiled, err := compiler.Compile(place)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", plain(err))
	}
	scale := scale{weights: make(map[*jsonschema.Schema]int)}
	if _, err := scale.weigh(compiled); err != nil {
		return nil, err
	}
	if err := compiler.AddResource(violatedPlace, map[string]any{"not": map[string]any{"$ref": place}}); err != nil {
		return nil, fmt.Errorf("schema: %w", plain(err))
	}
	violated, err := compiler.Compile(violatedPlace)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", plain(err))
	}
	return &Schema{text: text, compiled: compiled, violated: violated, plan: newPlan(scale.weights)}, nil
}

// Text is the text that was compiled.
func (s *Schema) Text() string { return s.text }

// Defect says what keeps a payload from meeting the schema, "" if it does.
func (s *Schema) Defect(body []byte) (defect string) {
	// Payloads come from anyone: a fault of the library must not cost a webhook, nor the node.
	defer func() {
		if recover() != nil {
			defect = notChecked
		}
	}()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return "payload is not JSON"
	}
	if _, ok := count(value); !ok {
		return fmt.Sprintf("payload holds a number beyond 1e±%d or of over %d characters, which is not checked against the schema", maxExponent, maxNumberBytes)
	}
	left := s.plan.work(s.compiled, value, maxWork)
	if left < 0 {
		return fmt.Sprintf("payload is too large to be checked against its schema: over %d checks", maxWork)
	}
	if s.violated.Validate(value) != nil {
		return ""
	}
	if maxWork-left > maxDetailWork {
		return "payload violates its schema, and is too large to say where"
	}
	s.detail.Lock()
	defer s.detail.Unlock()
	err = s.compiled.Validate(value)
	var violation *jsonschema.ValidationError
	if !errors.As(err, &violation) {
		return notChecked
	}
	return describe(violation)
}

// describe names the first violations, each by the place in the payload and the keyword's place in the schema.
func describe(root *jsonschema.ValidationError) string {
	var leaves []*jsonschema.ValidationError
	var collect func(v *jsonschema.ValidationError)
	collect = func(v *jsonschema.ValidationError) {
		if len(v.Causes) == 0 {
			leaves = append(leaves, v)
		}
		for _, cause := range v.Causes {
			collect(cause)
		}
	}
	collect(root)
	var b strings.Builder
	b.WriteString("payload violates its schema: ")
	for i, leaf := range leaves {
		if i == maxShown {
			fmt.Fprintf(&b, "; and %d more", len(leaves)-maxShown)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		rule := strings.TrimPrefix(leaf.SchemaURL, place+"#") + "/" + strings.Join(leaf.ErrorKind.KeywordPath(), "/")
		fmt.Fprintf(&b, "%s breaks %s", where("/"+strings.Join(leaf.InstanceLocation, "/")), where(rule))
	}
	return b.String()
}

// where is a place that can be shown and stored.
func where(place string) string {
	if len(place) > maxPlaceBytes {
		place = place[:maxPlaceBytes] + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(place, "?"))
}

// plain takes the library's lines together.
func plain(err error) error {
	if errors.Is(err, errFetch) {
		return errFetch
	}
	text := strings.ReplaceAll(err.Error(), place+"#", "")
	return errors.New(strings.Join(strings.Fields(text), " "))
}
