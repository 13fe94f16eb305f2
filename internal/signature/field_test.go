package signature

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDeliveryIDAndEventTypeAreFound(t *testing.T) {
	for _, c := range []struct {
		preset, body, id, eventType string
		header                      map[string]string
	}{
		{preset: PresetGitHub, header: map[string]string{"X-GitHub-Delivery": "72d3162e", "X-GitHub-Event": "push"}, id: "72d3162e", eventType: "push"},
		{preset: PresetShopify, header: map[string]string{"X-Shopify-Webhook-Id": "b54557e4", "X-Shopify-Topic": "orders/create"}, id: "b54557e4", eventType: "orders/create"},
		{preset: PresetStandardWebhooks, header: map[string]string{"webhook-id": "msg_1"}, body: `{"data":{"type":"no"},"type":"user.created"}`, id: "msg_1", eventType: "user.created"},
		{preset: PresetStripe, body: `{"id":"evt_1","object":"event","type":"invoice.paid"}`, id: "evt_1", eventType: "invoice.paid"},
		{preset: PresetStripe, body: `not JSON`},
		{preset: PresetGeneric, body: `{"id":"1","type":"x"}`},
	} {
		v := &Verifier{scheme: mustCompile(t, c.preset)}
		h := http.Header{}
		for name, value := range c.header {
			h.Set(name, value)
		}
		if id, ok := v.DeliveryID(h, []byte(c.body)); id != c.id || ok != (c.id != "") {
			t.Errorf("%s: delivery id = %q, %v, want %q", c.preset, id, ok, c.id)
		}
		if kind, ok := v.EventType(h, []byte(c.body)); kind != c.eventType || ok != (c.eventType != "") {
			t.Errorf("%s: event type = %q, %v, want %q", c.preset, kind, ok, c.eventType)
		}
	}
}

func mustCompile(t *testing.T, name string) *scheme {
	t.Helper()
	s, err := compile(preset(name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTextThatCannotBeStoredIsNotFound(t *testing.T) {
	v := &Verifier{scheme: mustCompile(t, PresetGitHub)}
	for _, text := range []string{"", "a\x00b", "a\nb", "\x7f", "\xff", strings.Repeat("x", 513)} {
		if got, ok := v.DeliveryID(http.Header{"X-Github-Delivery": {text}}, nil); ok {
			t.Errorf("%q was found as %q", text, got)
		}
	}
	stripe := &Verifier{scheme: mustCompile(t, PresetStripe)}
	for _, body := range []string{`{"id":""}`, `{"id":"a\u0000b"}`, "{\"id\":\"\xff\"}", `{"id":"` + strings.Repeat("x", 513) + `"}`} {
		if got, ok := stripe.DeliveryID(nil, []byte(body)); ok {
			t.Errorf("%q was found as %q", body, got)
		}
	}
}

func TestLookupJSON(t *testing.T) {
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
		{strings.Repeat(`{"x":`, 100_000), "id", ""},
		{strings.Repeat(`[`, 1_000_000), "id", ""},
	} {
		got, ok := lookupJSON([]byte(c.body), strings.Split(c.path, "."))
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%.60s at %s = %q, %v, want %q", c.body, c.path, got, ok, c.want)
		}
	}
}

// What the standard decoder makes of a document is what the scanner must find in it.
func TestLookupJSONAgreesWithTheStandardDecoder(t *testing.T) {
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
		inner := text.Draw(t, "inner")
		doc["p"] = map[string]any{"a": text.Draw(t, "other"), "q": inner}
		body, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := lookupJSON(body, []string{"p", "q"}); got != inner || !ok {
			t.Fatalf("found %q, %v in %s, want %q", got, ok, body, inner)
		}
	})
}
