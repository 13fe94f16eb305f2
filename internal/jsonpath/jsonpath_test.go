package jsonpath

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestText(t *testing.T) {
	for _, c := range []struct{ body, path, want string }{
		{`{"id":"a"}`, "id", "a"},
		{" {\n\t\"id\" : \"a\" } ", "id", "a"},
		{`{"id":12}`, "id", "12"},
		{`{"id":-1.5e3,"x":1}`, "id", "-1.5e3"},
		{`{"a":{"id":"no"},"b":["id",{"id":"no"}],"id":"yes"}`, "id", "yes"},
		{`{"data":{"x":[[]],"object":{"id":"deep"}}}`, "data.object.id", "deep"},
		{`{"s":"\"}{\\","id":"a"}`, "id", "a"},
		{`{"\u0069d":"a"}`, "id", "a"},
		{`{"id":"\u00e9\n\""}`, "id", "é\n\""},
		{`{"id":"first","id":"second"}`, "id", "first"},
		{`{"n":null,"t":true,"f":false,"m":1,"id":"a"}`, "id", "a"},
		{`[{"id":"a"},{"id":"b"}]`, "1.id", "b"},
		{`[{"id":"a"}, {"id":"b"} ]`, "0.id", "a"},
		{`{"v":[[1,2],[3,"x"]]}`, "v.1.1", "x"},
		{`{"v":{"0":"member"}}`, "v.0", "member"},
		{`[1]`, "1", ""},
		{`[]`, "0", ""},
		{`[1,`, "1", ""},
		{`[1 2]`, "1", ""},
		{`{"id":true}`, "id", ""},
		{`{"id":null}`, "id", ""},
		{`{"id":{}}`, "id", ""},
		{`{"id":01}`, "id", ""},
		{`{"id":`, "id", ""},
		{`{"id"`, "id", ""},
		{`{"id":"a`, "id", ""},
		{`{"id":"a\"`, "id", ""},
		{`{"id":,}`, "id", ""},
		{`{"id":]`, "id", ""},
		{`{"id" "a"}`, "id", ""},
		{`{}`, "id", ""},
		{``, "id", ""},
		{`[{"id":"a"}]`, "id", ""},
		{`"id"`, "id", ""},
		{`{"data":"x"}`, "data.id", ""},
		{`{"x":[1,2`, "id", ""},
		{`{"":"a"}`, "", ""},
		{`{"id":"` + strings.Repeat("x", MaxTextBytes+1) + `"}`, "id", ""},
		{strings.Repeat(`{"x":`, 100_000), "id", ""},
		{strings.Repeat(`[`, 1_000_000), "id", ""},
		{strings.Repeat(`[`, 1_000_000), "0.0.0", ""},
	} {
		got, ok := Parse(c.path).Text([]byte(c.body))
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%.60s at %s = %q, %v, want %q", c.body, c.path, got, ok, c.want)
		}
	}
}

func TestOnlyTextRefusesWhatReadersMayTakeInTwoWays(t *testing.T) {
	for _, c := range []struct {
		body, path, want string
		err              error
	}{
		{`{"id":"a"}`, "id", "a", nil},
		{`{"id":"a","x":{"id":"b"}}`, "id", "a", nil},
		{`{"x":1,"v":[{"id":"a","y":[]},{"id":"b"}],"z":1}`, "v.0.id", "a", nil},
		{`{"x":1}`, "id", "", nil},
		{`{"id":null}`, "id", "", nil},
		{`{"id":"a","id":"b"}`, "id", "", ErrRepeated},
		{`{"id":null,"id":"b"}`, "id", "", ErrRepeated},
		{`{"id":"a","x":[],"\u0069d":"b"}`, "id", "", ErrRepeated},
		{`{"v":{"id":"a"},"v":{"id":"b"}}`, "v.id", "", ErrRepeated},
		{`{"v":{"x":"a"},"v":{"id":"b"}}`, "v.id", "", ErrRepeated},
		{`{"v":{"id":"a"},"v":1}`, "v.id", "", ErrRepeated},
		{`{"id":{"x":1}}`, "id", "", ErrNoText},
		{`{"id":true}`, "id", "", ErrNoText},
		{`{"id":"` + strings.Repeat("x", MaxTextBytes+1) + `"}`, "id", "", ErrNoText},
		{`{"id":`, "id", "", nil},
	} {
		got, ok, err := Parse(c.path).OnlyText([]byte(c.body))
		if got != c.want || ok != (c.want != "") || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%.80s at %s = %q, %v, %v, want %q, %v", c.body, c.path, got, ok, err, c.want, c.err)
		}
	}
}

// What the standard decoder makes of a document is what the scanner must find in it.
func TestTextAgreesWithTheStandardDecoder(t *testing.T) {
	text := rapid.StringOfN(rapid.RuneFrom([]rune("ab\"\\{}[],: \u00e9\n\U0001F600")), 0, 8, -1)
	rapid.Check(t, func(t *rapid.T) {
		doc := map[string]any{}
		for range rapid.IntRange(0, 6).Draw(t, "members") {
			doc[text.Draw(t, "name")] = rapid.OneOf(
				rapid.Map(text, func(s string) any { return s }),
				rapid.Map(rapid.SliceOfN(text, 0, 3), func(s []string) any { return s }),
				rapid.Map(rapid.MapOfN(text, text, 0, 3), func(m map[string]string) any { return m }),
				rapid.Just[any](nil), rapid.Just[any](true), rapid.Just[any](1.5),
			).Draw(t, "value")
		}
		inner := rapid.SliceOfN(text, 1, 4).Draw(t, "inner")
		doc["p"] = map[string]any{"a": text.Draw(t, "other"), "q": inner}
		body, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		last := len(inner) - 1
		path := Parse("p.q." + string(rune('0'+last)))
		if got, ok := path.Text(body); got != inner[last] || !ok {
			t.Fatalf("Text found %q, %v in %s, want %q", got, ok, body, inner[last])
		}
		if got, ok, err := path.OnlyText(body); got != inner[last] || !ok || err != nil {
			t.Fatalf("OnlyText found %q, %v, %v in %s, want %q", got, ok, err, body, inner[last])
		}
	})
}

func FuzzFind(f *testing.F) {
	for _, body := range []string{`{"a":{"b":["x"]}}`, `{"a":{"b":`, `[[[`, `{"a":1,"a":2}`, `{"a":"\ud800"}`} {
		f.Add([]byte(body), "a.b.0")
	}
	f.Fuzz(func(t *testing.T, body []byte, path string) {
		p := Parse(path)
		text, ok := p.Text(body)
		if only, found, err := p.OnlyText(body); found && err == nil && (!ok || only != text) {
			t.Fatalf("OnlyText found %q, Text %q, %v", only, text, ok)
		}
		if from, to, found := p.Span(body); found && (from >= to || to > len(body)) {
			t.Fatalf("span %d to %d of %d bytes", from, to, len(body))
		}
	})
}
