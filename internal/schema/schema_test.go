package schema

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func compile(t *testing.T, text string) *Schema {
	t.Helper()
	s, err := Compile(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

const order = `{"type":"object","required":["id","items"],"properties":{"id":{"type":"string","pattern":"^ord_"},
	"items":{"type":"array","items":{"$ref":"#/$defs/item"}}},"additionalProperties":false,
	"$defs":{"item":{"type":"object","properties":{"price":{"type":"number","minimum":0}}}}}`

func TestDefectNamesThePlaceAndTheRule(t *testing.T) {
	s := compile(t, order)
	for _, c := range []struct{ body, want string }{
		{`{"id":"ord_1","items":[]}`, ""},
		{`{"id":"ord_1","items":[{"price":1.5},{}]}`, ""},
		{`{"id":"ord_1","items":[{"price":"free"}]}`, "payload violates its schema: /items/0/price breaks /$defs/item/properties/price/type"},
		{`{"id":"ord_1","items":[{"price":-1}]}`, "payload violates its schema: /items/0/price breaks /$defs/item/properties/price/minimum"},
		{`{"items":[]}`, "payload violates its schema: / breaks /required"},
		{`[]`, "payload violates its schema: / breaks /type"},
		{`{"id":"x","items":[],"more":1}`, "/id breaks /properties/id/pattern"},
		{`{`, "payload is not JSON"},
		{`{"id":"ord_1","items":[{"price":1e999999999}]}`, "number beyond"},
	} {
		got := s.Defect([]byte(c.body))
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.body, got, c.want)
		}
	}
	many := `{"id":"ord_1","items":[` + strings.TrimSuffix(strings.Repeat(`{"price":-1},`, 9), ",") + `]}`
	if got := s.Defect([]byte(many)); !strings.HasSuffix(got, "; and 6 more") {
		t.Errorf("nine violations: %q", got)
	}
}

func TestDefectDoesNotQuoteThePayload(t *testing.T) {
	s := compile(t, `{"properties":{"a":{"const":1},"b":{"enum":["x"]},"c":{"pattern":"^x$"},"d":{"format":"email"},"e":{"type":"null"}}}`)
	got := s.Defect([]byte(`{"a":"secret","b":"secret","c":"secret","d":"secret","e":"secret"}`))
	if got == "" || strings.Contains(got, "secret") {
		t.Errorf("defect: %q", got)
	}
	names := s.Defect([]byte("{\"a\":{\"" + strings.Repeat("n", 1000) + "\\u0000\":1}}"))
	if len(names) > 600 || strings.ContainsRune(names, 0) {
		t.Errorf("defect of %d bytes: %q", len(names), names)
	}
}

func TestSchemaThatCannotBeUsedIsRefusedWithTheRemedy(t *testing.T) {
	doubling := `{"$ref":"#/$defs/a0","$defs":{"a30":{"type":"null"}`
	for i := range 30 {
		doubling += fmt.Sprintf(`,"a%d":{"anyOf":[{"$ref":"#/$defs/a%d"},{"$ref":"#/$defs/a%d"}]}`, i, i+1, i+1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"no JSON":              {`{`, "not JSON"},
		"no schema":            {`1`, "schema"},
		"unknown type":         {`{"type":"text"}`, "/type"},
		"bad pattern":          {`{"pattern":"("}`, "pattern"},
		"remote":               {`{"$ref":"https://example.com/s.json"}`, "not fetched"},
		"file":                 {`{"$ref":"file:///etc/passwd"}`, "not fetched"},
		"metaschema":           {`{"$schema":"https://example.com/meta"}`, "not fetched"},
		"dangling":             {`{"$ref":"#/$defs/none"}`, "none"},
		"recursive":            {`{"properties":{"next":{"$ref":"#"}}}`, "refers to itself"},
		"endless":              {`{"$ref":"#"}`, "refers to itself"},
		"dynamic":              {`{"$dynamicRef":"#x","$defs":{"x":{"$dynamicAnchor":"x"}}}`, "$dynamicRef"},
		"too long":             {`{"title":"` + strings.Repeat("x", MaxTextBytes) + `"}`, "at most"},
		"doubles thirty times": {doubling + `}}`, "in size"},
		"huge number":          {`{"minimum":1e1000000}`, "number beyond"},
		"large pattern":        {`{"pattern":"(` + strings.Repeat("ab?", 500) + `){1000}"}`, "shorten the repeats"},
		"large name pattern":   {`{"$defs":{"a":{"patternProperties":{"([a-z]?x){1000}":{},"([a-z]?y){1000}":{},"(` + strings.Repeat("b?", 30) + `){900}":{}}}}}`, "shorten the repeats"},
		"long number":          {`{"minimum":0.` + strings.Repeat("1", maxNumberBytes) + `}`, "number beyond"},
	} {
		started := time.Now()
		_, err := Compile(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error = %v, want one that says %q", name, err, c.want)
		}
		if took := time.Since(started); took > 20*time.Second { // without its bounds it would take hours
			t.Errorf("%s: took %v", name, took)
		}
	}
}

func TestPayloadTooLargeForItsSchemaIsNotValidated(t *testing.T) {
	text := `{"items":{"anyOf":[` + strings.TrimSuffix(strings.Repeat(`{"type":"string"},`, 500), ",") + `]}}`
	s := compile(t, text)
	if got := s.Defect([]byte(`{"items":1}`)); got != "" {
		t.Error(got)
	}
	started := time.Now()
	got := s.Defect([]byte(`[` + strings.TrimSuffix(strings.Repeat("1,", 400_000), ",") + `]`))
	if !strings.Contains(got, "too large to be checked") {
		t.Errorf("defect: %.200q", got)
	}
	if took := time.Since(started); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// A number of a million digits has the library panic, and takes minutes before that.
func TestLongNumberIsNotChecked(t *testing.T) {
	for _, text := range []string{`{"multipleOf":0.01}`, `{"maximum":5}`, `{"type":"integer"}`, `{"enum":[1,2]}`} {
		s := compile(t, text)
		for _, number := range []string{"0." + strings.Repeat("7", 1_100_000), "-1" + strings.Repeat("0", maxNumberBytes)} {
			if got := s.Defect([]byte(number)); !strings.Contains(got, "number beyond") {
				t.Errorf("%s, a number of %d bytes: %.200q", text, len(number), got)
			}
		}
	}
	longest := "0." + strings.Repeat("0", maxNumberBytes-3) + "1"
	if got := compile(t, `{"minimum":0,"maximum":1}`).Defect([]byte(longest)); got != "" {
		t.Errorf("a number of %d bytes: %q", len(longest), got)
	}
	one := `{"enum":[` + strings.TrimSuffix(strings.Repeat("1,", 9000), ",") + `]}`
	if got := compile(t, `{"items":`+one+`}`).Defect([]byte("[" + strings.TrimSuffix(strings.Repeat(longest+",", 4), ",") + "]")); !strings.Contains(got, "too large to be checked") {
		t.Errorf("long numbers beside many values: %q", got)
	}
}

func TestLargePayloadIsValidatedWhenItsSchemaAsksLittleOfIt(t *testing.T) {
	items := `{"id":"ord_1","items":[` + strings.TrimSuffix(strings.Repeat(`{"price":1},`, 50_000), ",") + `]}`
	if got := compile(t, order).Defect([]byte(items)); got != "" {
		t.Error(got)
	}
	wrong := strings.Replace(items, `1}]`, `"1"}]`, 1)
	if got := compile(t, order).Defect([]byte(wrong)); got != "payload violates its schema, and is too large to say where" {
		t.Errorf("defect %q", got)
	}
}

// A pattern may be at as many of its steps at once, for each character.
func TestTextIsChargedForThePatternItMustMatch(t *testing.T) {
	text := `"` + strings.Repeat("a", 1<<20) + `"`
	if got := compile(t, `{"pattern":"(a?){1000}(a?){1000}(a?){1000}b$"}`).Defect([]byte(text)); !strings.Contains(got, "too large to be checked") {
		t.Errorf("a large pattern: %q", got)
	}
	if got := compile(t, `{"pattern":"^a{1,60}","enum":["`+strings.Repeat(`b","`, 100)+`b"]}`).Defect([]byte(text)); !strings.Contains(got, "violates") {
		t.Errorf("a usual pattern beside many values: %q", got)
	}
	names := `{"` + strings.Repeat("a", 1<<20) + `":1}`
	if got := compile(t, `{"patternProperties":{"(a?){1000}(a?){1000}(a?){1000}b$":{}}}`).Defect([]byte(names)); !strings.Contains(got, "too large to be checked") {
		t.Errorf("a large pattern for names: %q", got)
	}
}

func TestFormatIsNotAssertedInAnyDraft(t *testing.T) {
	for _, draft := range []string{"http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-06/schema#", "http://json-schema.org/draft-07/schema#",
		"https://json-schema.org/draft/2019-09/schema", "https://json-schema.org/draft/2020-12/schema"} {
		for _, format := range []string{"email", "date-time", "regex"} {
			s := compile(t, fmt.Sprintf(`{"$schema":%q,"properties":{"a":{"allOf":[{"$ref":"#/definitions/b"}]}},"definitions":{"b":{"format":%q}}}`, draft, format))
			if got := s.Defect([]byte(`{"a":"((("}`)); got != "" {
				t.Errorf("%s, %s: %q", draft, format, got)
			}
		}
	}
}

func TestOlderDraftsAreTaken(t *testing.T) {
	s := compile(t, `{"$schema":"http://json-schema.org/draft-07/schema#","items":[{"type":"string"}],"additionalItems":{"type":"number"}}`)
	if got := s.Defect([]byte(`["a",1]`)); got != "" {
		t.Error(got)
	}
	if s.Defect([]byte(`["a","b"]`)) == "" {
		t.Error("a violation was not found")
	}
}

func FuzzDefect(f *testing.F) {
	f.Add(order, []byte(`{"id":"ord_1","items":[]}`))
	f.Add(`{"uniqueItems":true}`, []byte(`[1,1.0]`))
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		if s, err := Compile(text); err == nil {
			s.Defect(body)
		}
	})
}
