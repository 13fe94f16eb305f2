package signature

import (
	"net/http"
	"strings"
	"testing"
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
