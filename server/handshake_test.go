package server

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

// presetEndpoint makes an endpoint of a preset with those secrets.
func (r *rig) presetEndpoint(a account, v *kapselv1.Verification, secrets ...string) *kapselv1.Endpoint {
	r.t.Helper()
	return must(a.endpoints.CreateEndpoint(r.t.Context(), &kapselv1.CreateEndpointRequest{
		Endpoint: &kapselv1.Endpoint{Verification: v}, Secrets: secrets,
	}))(r.t).Endpoint
}

// exchange sends any request, and returns the response with its body.
func (r *rig) exchange(method, url string, header http.Header, body string) (*http.Response, string) {
	r.t.Helper()
	request := must(http.NewRequestWithContext(r.t.Context(), method, url, strings.NewReader(body)))(r.t)
	for name, values := range header {
		request.Header[name] = values
	}
	response := must(r.client.Do(request))(r.t)
	defer response.Body.Close()
	return response, string(must(io.ReadAll(response.Body))(r.t))
}

func macOf(secret, text string) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func TestHandshakesAreAnsweredWithoutAnEvent(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	public, private := discordKeys(t)
	for _, test := range []struct {
		name, preset string
		secrets      []string
		sign         string // with this secret
		method       string
		query, body  string
		status       int
		contentType  string
		want         string
	}{
		{"Slack", "slack", []string{"old", "s"}, "s", "POST", "", `{"type":"url_verification","token":"t","challenge":"3eZbrw1aB10F"}`, 200, "text/plain; charset=utf-8", "3eZbrw1aB10F"},
		{"Slack, forged", "slack", []string{"s"}, "other", "POST", "", `{"type":"url_verification","challenge":"x"}`, 401, "application/problem+json", ""},
		{"Slack, no challenge", "slack", []string{"s"}, "s", "POST", "", `{"type":"url_verification"}`, 401, "application/problem+json", ""},
		{"Zoom", "zoom", []string{"old", "s"}, "s", "POST", "", `{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}`, 200, "application/json",
			`{"plainToken":"qgg8vlvZRS6UYooatFL8Aw","encryptedToken":"` + hex.EncodeToString(macOf("s", "qgg8vlvZRS6UYooatFL8Aw")) + `"}`},
		{"Zoom, forged", "zoom", []string{"s"}, "other", "POST", "", `{"event":"endpoint.url_validation","payload":{"plainToken":"x"}}`, 401, "application/problem+json", ""},
		{"Discord interaction", "discord", []string{public}, private, "POST", "", `{"type":1,"id":"1"}`, 200, "application/json", `{"type":1}`},
		{"Discord webhook event", "discord", []string{public}, private, "POST", "", `{"version":1,"type":0}`, 204, "", ""},
		{"Meta", "meta", []string{"s", "verify_token:v"}, "", "GET", "hub.mode=subscribe&hub.verify_token=v&hub.challenge=1158201444", "", 200, "text/plain; charset=utf-8", "1158201444"},
		{"Meta, wrong token", "meta", []string{"s", "verify_token:v"}, "", "GET", "hub.mode=subscribe&hub.verify_token=s&hub.challenge=1", "", 401, "application/problem+json", ""},
		{"Meta, no token", "meta", []string{"s"}, "", "GET", "hub.mode=subscribe&hub.challenge=1", "", 401, "application/problem+json", ""},
		{"Graph", "microsoft-graph", []string{"s"}, "", "POST", "validationToken=Validation%3A+%3Cscript%3E+%26", "", 200, "text/plain; charset=utf-8", "Validation: <script> &"},
		{"Graph, long", "microsoft-graph", []string{"s"}, "", "POST", "validationToken=" + strings.Repeat("x", 2049), "", 401, "application/problem+json", ""},
		{"Graph, line break", "microsoft-graph", []string{"s"}, "", "POST", "validationToken=a%0d%0ab", "", 401, "application/problem+json", ""},
		{"X", "x", []string{"s"}, "", "GET", "crc_token=abc", "", 200, "application/json",
			`{"response_token":"sha256=` + base64.StdEncoding.EncodeToString(macOf("s", "abc")) + `"}`},
		{"WooCommerce", "woocommerce", []string{"s"}, "", "POST", "", "webhook_id=12", 200, "", ""},
		{"WooCommerce, more than a ping", "woocommerce", []string{"s"}, "", "POST", "", "webhook_id=12&x=1", 401, "application/problem+json", ""},
		{"GET to a preset without one", "github", []string{"s"}, "", "GET", "hub.mode=subscribe&hub.challenge=1", "", 405, "application/problem+json", ""},
		{"GET without a handshake", "meta", []string{"s"}, "", "GET", "", "", 405, "application/problem+json", ""},
		{"HEAD", "meta", []string{"s"}, "", "HEAD", "hub.mode=subscribe", "", 405, "application/problem+json", ""},
		{"Intercom", "intercom", []string{"s"}, "", "HEAD", "", "", 200, "", ""},
		{"Graph's to another preset", "github", []string{"s"}, "", "POST", "validationToken=x", "", 401, "application/problem+json", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := r.presetEndpoint(a, &kapselv1.Verification{Preset: test.preset}, test.secrets...)
			header := http.Header{}
			if test.sign != "" {
				header = must(signature.Sign(signature.Config{Preset: test.preset}, []byte(test.sign), []byte(test.body), time.Now(), ""))(t)
			}
			response, body := r.exchange(test.method, r.ingestURL(e)+"?"+test.query, header, test.body)
			if response.StatusCode != test.status || response.Header.Get("Content-Type") != test.contentType {
				t.Fatalf("got %d %s: %s", response.StatusCode, response.Header.Get("Content-Type"), body)
			}
			if test.status < 300 && (body != test.want || response.Header.Get("X-Content-Type-Options") != "nosniff") {
				t.Errorf("answered %q, want %q, headers %v", body, test.want, response.Header)
			}
			if test.status == 405 && !strings.Contains(response.Header.Get("Allow"), "POST") {
				t.Errorf("Allow %q", response.Header.Get("Allow"))
			}
		})
	}
	if list := must(a.events.ListEvents(t.Context(), &kapselv1.ListEventsRequest{}))(t); len(list.Events) != 0 {
		t.Errorf("handshakes made %d events", len(list.Events))
	}
}

// discordKeys returns a public and a private key in hex.
func discordKeys(t *testing.T) (public, private string) {
	t.Helper()
	text, _ := signature.NewKeyPair()
	raw := must(base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsk_")))(t)
	return hex.EncodeToString(raw[32:]), hex.EncodeToString(raw)
}

func TestSignedURLIsTheConfiguredOneOrTheServersOwn(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	body := []byte(`{"event_id":"e1","type":"payment.updated"}`)
	for n, signedURL := range []string{"", "https://hooks.example.net/square"} {
		e := r.presetEndpoint(a, &kapselv1.Verification{Preset: "square", SignedUrl: signedURL}, "s")
		base := signedURL
		if base == "" {
			base = e.IngestUrl
		}
		for _, query := range []string{"", "?a=1"} {
			signed := must(signature.SignRequest(signature.Config{Preset: "square"}, []byte("s"), signature.Request{URL: base + query, Body: body}, time.Now(), ""))(t)
			if got := r.post(r.ingestURL(e)+query, signed.Header, bytes.NewReader(body)); got.status != http.StatusAccepted {
				t.Errorf("case %d, query %q: got %+v", n, query, got)
			}
			r.post(r.ingestURL(e)+query+"?b=1", signed.Header, bytes.NewReader(body)).wantProblem(t, http.StatusUnauthorized, "signature_invalid")
		}
	}
}

func TestPayloadThatViolatesTheSchemaIsDeadLettered(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{
		PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON,
		JsonSchema:    `{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}`,
	})
	for _, c := range []struct{ body, state, defect string }{
		{`{"id":1}`, "accepted", ""},
		{`{"id":"secret"}`, "dead_lettered", "payload violates its schema: /id breaks /properties/id/type"},
		{`{}`, "dead_lettered", "payload violates its schema: / breaks /required"},
		{`{`, "dead_lettered", "payload is not JSON"},
	} {
		got := r.post(r.ingestURL(e), nil, strings.NewReader(c.body))
		if got.status != http.StatusAccepted || got.State != c.state {
			t.Fatalf("%s: got %+v, want state %s", c.body, got, c.state)
		}
		want := kapselv1.EventState_EVENT_STATE_UNMATCHED
		if c.defect != "" {
			want = kapselv1.EventState_EVENT_STATE_DEAD_LETTERED
		}
		if event := r.event(a, got.EventID, want); !strings.HasPrefix(event.Defect, c.defect) || (event.Defect == "") != (c.defect == "") {
			t.Errorf("%s: defect %q, want %q", c.body, event.Defect, c.defect)
		}
	}
	described := must(a.endpoints.GetEndpoint(t.Context(), &kapselv1.GetEndpointRequest{EndpointId: e.Id}))(t)
	if described.Endpoint.JsonSchema != e.JsonSchema || e.JsonSchema == "" {
		t.Errorf("schema %q", described.Endpoint.JsonSchema)
	}
}

// A 204 has no length, and the connection goes on after it.
func TestDiscordIsAnsweredWithoutABody(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	public, private := discordKeys(t)
	e := r.presetEndpoint(a, &kapselv1.Verification{Preset: "discord"}, public)
	for _, id := range []string{"1", "2"} {
		body := `{"type":1,"event":{"type":"APPLICATION_AUTHORIZED","timestamp":"` + id + `"}}`
		header := must(signature.Sign(signature.Config{Preset: "discord"}, []byte(private), []byte(body), time.Now(), ""))(t)
		response, answer := r.exchange(http.MethodPost, r.ingestURL(e), header, body)
		if response.StatusCode != http.StatusNoContent || answer != "" || response.Header.Get("Content-Length") != "" || response.Header.Get("Content-Type") != "" {
			t.Errorf("got %d %q, headers %v", response.StatusCode, answer, response.Header)
		}
	}
	if list := must(a.events.ListEvents(t.Context(), &kapselv1.ListEventsRequest{}))(t); len(list.Events) != 2 {
		t.Errorf("%d events, want 2", len(list.Events))
	}
}

func TestReplayOfEveryPresetIsADuplicate(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	bodies := map[string]string{
		"pagerduty": `{"event":{"id":"e1"}}`, "linear": `{"webhookTimestamp":0}`, "twilio": "a=1",
		"adyen": `{"notificationItems":[{"NotificationRequestItem":{"additionalData":{"hmacSignature":""},"pspReference":"p","eventCode":"e","success":"true"}}]}`,
	}
	for _, p := range signature.Presets() {
		switch p.Name {
		case "none", "generic", "microsoft-graph", // nothing tells a repeat
			"discord", "sendgrid": // keys of other forms, in package signature's tests
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			secret := p.NewSecret()
			if p.KeyForm == signature.KeyHex {
				secret = fmt.Sprintf("%x", secret)
			}
			e := r.presetEndpoint(a, &kapselv1.Verification{Preset: p.Name}, secret)
			body, found := bodies[p.Name]
			if !found {
				body = `{"id":"e1","event_id":"e1"}`
			}
			header := http.Header{}
			if p.Name == "twilio" {
				header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			signed := must(signature.SignRequest(signature.Config{Preset: p.Name}, []byte(secret),
				signature.Request{Method: http.MethodPost, URL: e.IngestUrl, Header: header, Body: []byte(body)}, time.Now(), "delivery-1"))(t)
			first := r.post(r.ingestURL(e), signed.Header, bytes.NewReader(signed.Body))
			again := r.post(r.ingestURL(e), signed.Header, bytes.NewReader(signed.Body))
			status := cmp.Or(p.Acknowledgement, http.StatusAccepted)
			told := !first.Duplicate && again.Duplicate && again.EventID == first.EventID || status == http.StatusNoContent
			if first.status != status || again.status != status || !told {
				t.Errorf("first %+v, again %+v", first, again)
			}
			if list := must(a.events.ListEvents(t.Context(), &kapselv1.ListEventsRequest{Filter: &kapselv1.EventFilter{EndpointIds: []string{e.Id}}}))(t); len(list.Events) != 1 {
				t.Errorf("%d events, want 1", len(list.Events))
			}
		})
	}
}
