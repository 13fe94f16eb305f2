package filter

import (
	"encoding/json"
	"testing"
	"time"
)

// FuzzFilter holds any expression and any payload to what intake relies on: no panic, no long run, no change of the
// payload, the same answer twice, and null for what is not JSON.
func FuzzFilter(f *testing.F) {
	for _, seed := range []struct{ expression, body string }{
		{`payload.a == 1`, `{"a": 1}`},
		{`payload.exists(x, x.a in [1, 2.0, "3"])`, `[{"a": "3"}]`},
		{`headers.exists(k, k.matches("^x-(a|b){2,3}$"))`, `{"p": 1}`},
		{`event_type + string(payload) > "a" || duration("1s") < duration("2s")`, `12`},
		{`payload.map(a, payload.map(b, a == b)).size() > 1`, `[1, [2], {"c": null}]`},
		{`{"a": [1u, b"x", payload]}.all(k, true) ? payload == null : has(payload.a.b)`, `{"a": {"b": -0}}`},
	} {
		f.Add(seed.expression, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, expression string, body []byte) {
		before := string(body)
		started := time.Now()
		compiled, err := New(nil, expression)
		if err != nil {
			compiled = mustNew(t, nil, `payload == payload`)
		}
		first, second := compiled.Meets(event(before)), compiled.Meets(event(before))
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
		if first != second {
			t.Errorf("met %v, then %v", first, second)
		}
		value, err := decode(body)
		if string(body) != before {
			t.Error("the payload was changed")
		}
		if value != nil && !json.Valid(body) {
			t.Errorf("not JSON, and decoded as %v", value)
		}
		var plain any
		if err == nil && value == nil && json.Unmarshal(body, &plain) == nil && plain != nil {
			t.Error("JSON that was not decoded")
		}
	})
}
