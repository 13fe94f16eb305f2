package filter

import (
	"encoding/json"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

const order = `{"id": 9007199254740993, "total": 12.5, "paid": true, "note": null, "customer": {"country": "DE", "tags": ["vip", "eu"]},
	"lines": [{"sku": "a-1", "count": 2}, {"sku": "b-2", "count": 0}]}`

func event(body string) *Event {
	return NewEvent("order.paid", http.Header{"X-Shop": {"first", "second"}, "Content-Type": {"application/json"}}, []byte(body))
}

func mustNew(t testing.TB, eventTypes []string, expression string) *Filter {
	t.Helper()
	f, err := New(eventTypes, expression)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return f
}

func TestExpressionsSeeTypeHeadersAndPayload(t *testing.T) {
	for expression, want := range map[string]bool{
		`true`:                       true,
		`false`:                      false,
		`event_type == "order.paid"`: true,
		`event_type.startsWith("order.") && event_type != "order.paid"`:        false,
		`headers["x-shop"] == "first"`:                                         true,  // the first value
		`"X-Shop" in headers`:                                                  false, // names are in lower case
		`"x-other" in headers`:                                                 false,
		`payload.customer.country in ["DE", "AT"]`:                             true,
		`payload.customer.country in ["FR"]`:                                   false,
		`payload.paid == true && payload.note == null`:                         true,
		`payload.total > 12`:                                                   true,
		`payload.total < 12.4`:                                                 false,
		`payload.id == 9007199254740993`:                                       true,
		`payload.id == 9007199254740992`:                                       false, // exact: not the same double
		`string(payload.id) == "9007199254740993"`:                             true,
		`payload.lines[0].count % 2 == 1`:                                      false,
		`payload.lines.exists(l, l.sku.startsWith("b") && l.count == 0)`:       true,
		`payload.lines.all(l, l.count > 0)`:                                    false,
		`payload.customer.tags.filter(t, t == "vip").size() == 2`:              false,
		`has(payload.customer.vat)`:                                            false,
		`has(payload.refund) || payload.lines.size() == 3`:                     false,
		`payload.customer.country.matches("^[A-Z]{2}$")`:                       true,
		`"vip" in payload.customer.tags`:                                       true,
		`payload.customer == {"country": "DE", "tags": ["vip", "eu"]}`:         true,
		`payload.lines.exists(l, payload.customer.tags.exists(g, g == l.sku))`: false,
	} {
		f := mustNew(t, nil, expression)
		if got := f.Meets(event(order)); got != want {
			t.Errorf("%s: got %v, want %v", expression, got, want)
		}
		if _, err := f.expression.evaluate(event(order)); err != nil {
			t.Errorf("%s: fails: %v", expression, err)
		}
	}
}

func TestEventPassesAnExpressionThatFailsOnIt(t *testing.T) {
	for name, test := range map[string]struct{ expression, body string }{
		"no such member":         {`payload.missing == 1`, `{}`},
		"no such header":         {`headers["x-none"] == "a"`, `{}`},
		"not an object":          {`payload.a == 1`, `[1]`},
		"not JSON":               {`payload.a == 1`, `{"a": 1`},
		"division by zero":       {`1 / payload.a == 1`, `{"a": 0}`},
		"overflow":               {`payload.a * payload.a == 1`, `{"a": 9007199254740993}`},
		"another type":           {`payload.a.startsWith("x")`, `{"a": 1}`},
		"a number beyond bounds": {`payload.a == 1`, `{"a": 1e999}`},
		"too deep":               {`payload.size() == 0`, strings.Repeat("[", 100) + strings.Repeat("]", 100)},
		"too many values":        {`payload.size() == 0`, "[" + strings.Repeat("1,", 5000) + "1]"},
		"too costly":             {`payload.exists(a, payload.exists(b, a + b == 0))`, "[" + strings.Repeat("1,", 800) + "1]"},
	} {
		t.Run(name, func(t *testing.T) {
			f := mustNew(t, nil, test.expression)
			if !f.Meets(event(test.body)) {
				t.Error("the event does not pass")
			}
			if _, err := f.expression.evaluate(event(test.body)); err == nil {
				t.Error("the expression does not fail")
			}
		})
	}
}

func TestPayloadIsNullUnlessItIsJSON(t *testing.T) {
	isNull := mustNew(t, nil, `payload == null`)
	for body, want := range map[string]bool{
		``: true, `null`: true, `hello`: true, `{"a":}`: true, `1 2`: true, `{} x`: true, "\xff": true,
		`{}`: false, `[]`: false, `0`: false, `""`: false, `false`: false, " [1] \n": false,
	} {
		if got, err := isNull.expression.evaluate(event(body)); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", body, got, err, want)
		}
	}
}

func TestExpressionsThatAreRefused(t *testing.T) {
	loop := `payload.exists(a, payload.exists(b, payload.exists(c, a == b && b == c)))`
	for name, test := range map[string]struct{ expression, message string }{
		"syntax":               {`payload.a == `, "line 1, column 14"},
		"second line":          {"true &&\n  fooo == 1", "line 2, column 3: undeclared reference to 'fooo'"},
		"what there is":        {`body.a == 1`, "expressions see event_type, headers and payload"},
		"unknown function":     {`event_type.lower() == "a"`, "undeclared reference to 'lower'"},
		"type error":           {`event_type > 3`, "line 1, column 12"},
		"a text":               {`event_type`, "of type string"},
		"a number":             {`1 + 2`, "of type int"},
		"type of each event":   {`payload.active`, "(payload.active) == true"},
		"pattern":              {`event_type.matches("(")`, "column 20"},
		"large pattern":        {`event_type.matches("(ab){1000}")`, "column 20: the pattern compiles to"},
		"huge pattern":         {`event_type.matches("(` + strings.Repeat("ab?", 500) + `){1000}")`, "column 20: the pattern compiles to"},
		"vast pattern":         {`event_type.matches("((a{100}){100}){100}")`, "column 20"},
		"chosen pattern":       {`event_type.matches(payload.p)`, "line 1, column 27: the pattern of matches must be a literal"},
		"three nested loops":   {loop, "nest fewer loops"},
		"four nested loops":    {`[1].all(a, [1].all(b, [1].all(c, [1].all(d, a == d))))`, "column"},
		"length":               {`event_type == "` + strings.Repeat("x", 4096) + `"`, "at most 4096"},
		"nesting":              {strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300), "compile"},
		"many nodes":           {"true" + strings.Repeat("&&[1,1,1,1,1,1,1,1,1,1]==[1]", 140), "compile"},
		"NUL":                  {"event_type == \x00", "compile"},
		"unknown time literal": {`timestamp("yesterday") < timestamp("2026-01-01T00:00:00Z")`, "column"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(nil, test.expression)
			var refused *ExpressionError
			if !errors.As(err, &refused) {
				t.Fatalf("got %v, want an ExpressionError", err)
			}
			if !strings.Contains(err.Error(), test.message) {
				t.Errorf("message %q does not say %q", err, test.message)
			}
			if len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n") {
				t.Errorf("message of %d bytes: %q", len(err.Error()), err)
			}
		})
	}
}

func TestTwoNestedLoopsOverThePayloadAreAllowed(t *testing.T) {
	mustNew(t, nil, `payload.orders.exists(o, o.lines.exists(l, l.sku == "a" && l.count > 0))`)
}

func TestExpressionCannotRunForLong(t *testing.T) {
	large := `{"a": [` + strings.Repeat(`{"k": "v"},`, 60_000) + `0]}`
	deep := strings.Repeat("[", 60) + strings.Repeat("]", 60)
	for name, test := range map[string]struct{ expression, body string }{
		"compares the payload in a loop":  {`payload.a.all(k, payload == payload)`, large},
		"compares the payload many times": {"true" + strings.Repeat(" && payload == payload", 150), large},
		"looks for the payload":           {"true" + strings.Repeat(" && payload in [payload]", 150), large},
		"loops":                           {`payload.a.all(x, payload.a.all(y, x == y || x != y))`, large},
		"builds lists":                    {`payload.a.map(x, payload.a.map(y, [x, y])).size() == 0`, large},
		"nested deep":                     {"true" + strings.Repeat(" && payload == payload", 150), deep},
		"pattern against a long text":     {"true" + strings.Repeat(` && !payload.matches("(a+)+b$")`, 80), `"` + strings.Repeat("a", 500_000) + `"`},
	} {
		t.Run(name, func(t *testing.T) {
			f := mustNew(t, nil, test.expression)
			started := time.Now()
			f.Meets(event(test.body))
			// Some 50 ms for the decoding alone; a bound that a busy machine and the race detector meet.
			if took := time.Since(started); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestPayloadIsDecodedOnceAndOnlyWhenRead(t *testing.T) {
	e := event(order)
	mustNew(t, nil, `event_type == "other" && payload.id == 1`).Meets(e)
	mustNew(t, nil, `headers["x-shop"] == "first"`).Meets(e)
	if e.decoded {
		t.Error("the payload was decoded without need")
	}
	mustNew(t, nil, `payload.paid == true`).Meets(e)
	if !e.decoded {
		t.Fatal("the payload was not decoded")
	}
	e.body = []byte("gone")
	if mustNew(t, nil, `payload.paid == false`).Meets(e) {
		t.Error("the payload was decoded again")
	}
}

func TestEventTypes(t *testing.T) {
	for _, test := range []struct {
		types     []string
		eventType string
		want      bool
	}{
		{nil, "", true}, {nil, "push", true},
		{[]string{"push"}, "push", true}, {[]string{"push"}, "pushed", false}, {[]string{"push"}, "", false}, {[]string{"push"}, "PUSH", false},
		{[]string{"invoice.*"}, "invoice.paid", true}, {[]string{"invoice.*"}, "invoice.", true}, {[]string{"invoice.*"}, "invoice", false},
		{[]string{"*"}, "", true}, {[]string{"*"}, "any", true},
		{[]string{"a", "b*"}, "a", true}, {[]string{"a", "b*"}, "bc", true}, {[]string{"a", "b*"}, "ab", false},
		{[]string{"a*b"}, "a*b", true}, {[]string{"a*b"}, "axb", false}, // only at the end
	} {
		if got := mustNew(t, test.types, "").MatchesType(test.eventType); got != test.want {
			t.Errorf("%q of %q: got %v, want %v", test.eventType, test.types, got, test.want)
		}
	}
}

func TestChangedEventTypesKeepTheExpression(t *testing.T) {
	f := mustNew(t, []string{"a"}, `event_type == "b"`)
	changed := f.With([]string{"b"})
	if !changed.MatchesType("b") || changed.MatchesType("a") || changed.expression != f.expression || f.MatchesType("b") {
		t.Error("With does not change just the event types")
	}
}

func TestDecodingAgreesWithJSON(t *testing.T) {
	for _, body := range []string{order, `[]`, `{"a":{"b":[1,2,{"c":"\u00e9\ud83d\ude00"}]}}`, `"\ud800"`, `[1.0, 1e2, -1]`, `{"a":1,"a":2}`} {
		got, err := decode([]byte(body))
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		var want any
		if err := json.Unmarshal([]byte(body), &want); err != nil {
			t.Fatal(err)
		}
		gotText, _ := json.Marshal(got)
		var again any
		json.Unmarshal(gotText, &again)
		wantText, _ := json.Marshal(want)
		gotText, _ = json.Marshal(again)
		if string(gotText) != string(wantText) {
			t.Errorf("got %s, want %s", gotText, wantText)
		}
	}
}

// Patterns are looked at before they are compiled, which takes half a second and a GiB for one of 1500 characters.
func TestHugePatternIsRefusedBeforeItIsCompiled(t *testing.T) {
	expression := `event_type.matches("(` + strings.Repeat("ab?", 500) + `){1000}")`
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := compile(expression); err == nil {
		t.Fatal("it was taken")
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 100<<20 {
		t.Errorf("refusing it took %d MiB of memory", took>>20)
	}
}
