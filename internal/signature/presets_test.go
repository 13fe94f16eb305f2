package signature

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const sampleURL = "https://hooks.example.com/in?a=1"

// secretPair is what the sender signs with and what the receiver has. Where they are one, the two are equal.
type secretPair struct{ sender, receiver string }

// newSecretPair makes secrets of the form that the preset takes.
func newSecretPair(t testing.TB, p Preset) secretPair {
	t.Helper()
	private, _ := NewKeyPair()
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(private, PrefixPrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	switch p.KeyForm {
	case KeyHex:
		both := hex.EncodeToString(raw[:32])
		return secretPair{both, both}
	case KeyEd25519:
		return secretPair{hex.EncodeToString(raw), hex.EncodeToString(raw[32:])}
	case KeyECDSA:
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		sender, err1 := x509.MarshalPKCS8PrivateKey(k)
		receiver, err2 := x509.MarshalPKIXPublicKey(&k.PublicKey)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return secretPair{base64.StdEncoding.EncodeToString(sender), base64.StdEncoding.EncodeToString(receiver)}
	default:
		both := p.NewSecret()
		return secretPair{both, both}
	}
}

// sampleBody has every member that a preset reads.
func sampleBody(p Preset) []byte {
	switch p.Name {
	case "adyen":
		return []byte(`{"live":"false","notificationItems":[{"NotificationRequestItem":{"additionalData":{"hmacSignature":""},` +
			`"amount":{"currency":"EUR","value":1130},"eventCode":"AUTHORISATION","merchantAccountCode":"TestMerchant",` +
			`"merchantReference":"TestPayment-1407325143704","pspReference":"7914073381342284","success":"true"}}]}`)
	case "microsoft-graph":
		return []byte(`{"value":[{"clientState":"","changeType":"created"}]}`)
	case "linear":
		return []byte(`{"action":"create","webhookTimestamp":0}`)
	case "pagerduty":
		return []byte(`{"event":{"id":"e1","event_type":"incident.triggered"}}`)
	case "hubspot":
		return []byte(`[{"subscriptionType":"contact.creation","eventId":1}]`)
	case "sendgrid":
		return []byte(`[{"event":"open","sg_event_id":"1"}]`)
	case "twilio":
		return []byte("MessageSid=SM1&To=%2B1")
	case "slack", "discord":
		return []byte(`{"id":"d1","event_id":"d1","event":{"type":"message"}}`)
	case "meta":
		return []byte(`{"object":"page","entry":[]}`)
	case "postmark":
		return []byte(`{"RecordType":"Bounce"}`)
	case "intercom":
		return []byte(`{"id":"n1","topic":"conversation.user.created"}`)
	case "zoom", "calendly", "razorpay":
		return []byte(`{"event":"happened","payload":{}}`)
	}
	return []byte(`{"id":"e1","event_id":"e1","type":"happened","event_type":"happened"}`)
}

// sample is a signed request of a preset.
func sample(t testing.TB, p Preset, secret string, now time.Time) Request {
	t.Helper()
	header := http.Header{"Content-Type": {"application/json"}}
	if p.Name == "twilio" {
		header = form
	}
	r, err := SignRequest(Config{Preset: p.Name}, []byte(secret),
		Request{Method: http.MethodPost, URL: sampleURL, Header: header, Body: sampleBody(p)}, now, "delivery-1")
	if err != nil {
		t.Fatalf("%s: %v", p.Name, err)
	}
	if p.EventType.Header != "" {
		r.Header.Set(p.EventType.Header, "happened")
	}
	return r
}

// forEachPreset runs a test for all that verify, so that a new one is covered by being in the table.
func forEachPreset(t *testing.T, test func(t *testing.T, p Preset, secrets secretPair, v *Verifier)) {
	for _, p := range Presets() {
		if p.Algorithm == AlgorithmNone {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			secrets := newSecretPair(t, p)
			v, err := NewVerifier(Config{Preset: p.Name}, asBytes([]string{newSecretPair(t, p).receiver, secrets.receiver}))
			if err != nil {
				t.Fatal(err)
			}
			test(t, p, secrets, v)
		})
	}
}

func TestEveryPresetTakesEitherOfTwoSecretsAndNoOther(t *testing.T) {
	forEachPreset(t, func(t *testing.T, p Preset, secrets secretPair, _ *Verifier) {
		next, other := newSecretPair(t, p), newSecretPair(t, p)
		v, err := NewVerifier(Config{Preset: p.Name}, asBytes([]string{secrets.receiver, next.receiver}))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []secretPair{secrets, next} {
			if err := v.Verify(sample(t, p, s.sender, specTime), specTime); err != nil {
				t.Errorf("with one of its secrets: %v", err)
			}
		}
		if err := v.Verify(sample(t, p, other.sender, specTime), specTime); !errors.Is(err, ErrBadSignature) {
			t.Errorf("with another secret: error = %v, want ErrBadSignature", err)
		}
	})
}

func TestEveryPresetRefusesAFlippedBit(t *testing.T) {
	forEachPreset(t, func(t *testing.T, p Preset, secrets secretPair, v *Verifier) {
		r := sample(t, p, secrets.sender, specTime)
		refused := func(what string, changed Request) {
			t.Helper()
			if v.Verify(changed, specTime) == nil {
				t.Fatalf("verified with %s changed", what)
			}
		}
		if p.Header != "" {
			value := r.Header.Get(p.Header)
			for i := range value {
				for bit := range 8 {
					flipped := []byte(value)
					flipped[i] ^= 1 << bit
					if p.Encoding == Hex && strings.EqualFold(string(flipped), value) {
						continue // the same digit in the other case
					}
					changed := r
					changed.Header = r.Header.Clone()
					changed.Header.Set(p.Header, string(flipped))
					refused("the signature", changed)
				}
			}
		}
		for _, covered := range coveredRanges(t, p, r.Body) {
			for i := covered[0]; i < covered[1]; i++ {
				for bit := range 8 {
					changed := r
					changed.Body = bytes.Clone(r.Body)
					changed.Body[i] ^= 1 << bit
					if p.Name == "twilio" && reflect.DeepEqual(parsedForm(r.Body), parsedForm(changed.Body)) {
						continue // a digit of an escape in the other case
					}
					refused("the body", changed)
				}
			}
		}
		if v.SignsURL() {
			changed := r
			changed.URL += "&b=2"
			refused("the URL", changed)
		}
		if strings.Contains(p.Content, "{method}") {
			changed := r
			changed.Method = http.MethodPut
			refused("the method", changed)
		}
	})
}

func parsedForm(body []byte) url.Values {
	values, _ := url.ParseQuery(string(body))
	return values
}

// coveredRanges are the parts of a body that the preset's signature covers.
func coveredRanges(t *testing.T, p Preset, body []byte) (ranges [][2]int) {
	t.Helper()
	if p.Algorithm != Token && p.SignatureJSON == "" {
		return [][2]int{{0, len(body)}}
	}
	s, err := compile(p)
	if err != nil {
		t.Fatal(err)
	}
	add := func(from, to int, ok bool) {
		if ok {
			ranges = append(ranges, [2]int{from + 1, to - 1})
		}
	}
	add(s.signaturePath.Span(body))
	for _, part := range s.content {
		add(part.path.Span(body))
	}
	return ranges
}

func TestEveryTimedPresetRefusesAnotherTime(t *testing.T) {
	forEachPreset(t, func(t *testing.T, p Preset, secrets secretPair, v *Verifier) {
		if !p.Timed() {
			t.Skip("signs no time")
		}
		r := sample(t, p, secrets.sender, specTime)
		for _, c := range []struct {
			late time.Duration
			want error
		}{
			{0, nil}, {p.Tolerance, nil}, {-p.Tolerance, nil},
			{p.Tolerance + time.Millisecond, ErrStaleTimestamp}, {-p.Tolerance - time.Millisecond, ErrFutureTimestamp},
		} {
			if err := v.Verify(r, specTime.Add(c.late)); !errors.Is(err, c.want) {
				t.Errorf("read %v late: error = %v, want %v", c.late, err, c.want)
			}
		}
		// A fresh time on an old signature.
		fresh := r
		switch {
		case p.TimestampHeader != "":
			fresh.Header = r.Header.Clone()
			fresh.Header.Set(p.TimestampHeader, sample(t, p, secrets.sender, specTime.Add(time.Hour)).Header.Get(p.TimestampHeader))
		case p.TimestampPrefix != "":
			fresh.Header = r.Header.Clone()
			_, rest, _ := strings.Cut(r.Header.Get(p.Header), p.Separator)
			first, _, _ := strings.Cut(sample(t, p, secrets.sender, specTime.Add(time.Hour)).Header.Get(p.Header), p.Separator)
			fresh.Header.Set(p.Header, first+p.Separator+rest)
		default:
			fresh.Body = sample(t, p, secrets.sender, specTime.Add(time.Hour)).Body
		}
		if err := v.Verify(fresh, specTime.Add(time.Hour)); !errors.Is(err, ErrBadSignature) {
			t.Errorf("with a fresh time: error = %v, want ErrBadSignature", err)
		}
	})
}

// withoutKey are the presets by which a repeat cannot be told from another event.
var withoutKey = []string{PresetGeneric, "microsoft-graph"}

func TestEveryPresetTellsAReplay(t *testing.T) {
	forEachPreset(t, func(t *testing.T, p Preset, secrets secretPair, v *Verifier) {
		r := sample(t, p, secrets.sender, specTime)
		id, found := v.DeliveryID(r.Header, r.Body)
		if has := found || v.RepeatsBody(); has == slices.Contains(withoutKey, p.Name) {
			t.Errorf("has a key: %v", has)
		}
		if found && id == "" {
			t.Error("the delivery id is empty")
		}
	})
}

func TestEveryPresetSaysWhichEventItIs(t *testing.T) {
	forEachPreset(t, func(t *testing.T, p Preset, secrets secretPair, v *Verifier) {
		r := sample(t, p, secrets.sender, specTime)
		_, found := v.EventType(r.Header, r.Body)
		if has := p.EventType.Header != "" || p.EventType.JSON != nil; found != has {
			t.Errorf("event type found: %v, want %v", found, has)
		}
	})
}

func TestEveryPresetRefusesARequestWithoutSignature(t *testing.T) {
	forEachPreset(t, func(t *testing.T, p Preset, secrets secretPair, v *Verifier) {
		bare := Request{Method: http.MethodPost, URL: sampleURL, Header: http.Header{}, Body: []byte(`{}`)}
		if err := v.Verify(bare, specTime); !errors.Is(err, ErrMissingSignature) {
			t.Errorf("error = %v, want ErrMissingSignature", err)
		}
		if p.Header != "" {
			r := sample(t, p, secrets.sender, specTime)
			r.Header.Add(p.Header, r.Header.Get(p.Header))
			if err := v.Verify(r, specTime); !errors.Is(err, ErrMalformedSignature) {
				t.Errorf("header twice: error = %v, want ErrMalformedSignature", err)
			}
		}
	})
}

func TestAdyenDocumentedNotificationVerifies(t *testing.T) {
	// From the tests of Adyen's libraries.
	const key, signature = "DFB1EB5485895CFA84146406857104ABB4CBCABDC8AAF103A624C8F6A3EAAB00", "Ny9gS2veKo5E4w8/OL6xz1/wvT/hYkAXy1xNc/QvO4I="
	body := bytes.Replace(sampleBody(preset("adyen")), []byte(`"hmacSignature":""`), []byte(`"hmacSignature":"`+signature+`"`), 1)
	v, err := NewVerifier(Config{Preset: "adyen"}, asBytes([]string{key}))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Verify(Request{Body: body}, specTime); err != nil {
		t.Fatal(err)
	}
	if id, _ := v.DeliveryID(nil, body); id != "AUTHORISATION:7914073381342284:true" {
		t.Errorf("delivery id = %q", id)
	}
	for name, forged := range map[string][]byte{
		"second item":                 bytes.Replace(body, []byte(`}}]}`), []byte(`}},{"NotificationRequestItem":{}}]}`), 1),
		"second amount":               bytes.Replace(body, []byte(`"success":"true"`), []byte(`"success":"true","amount":{"currency":"EUR","value":9}`), 1),
		"two references":              bytes.Replace(body, []byte(`"success":"true"`), []byte(`"success":"true","originalReference":"a","originalReference":"b"`), 1),
		"a reference that is no text": bytes.Replace(body, []byte(`"success":"true"`), []byte(`"success":"true","originalReference":["a"]`), 1),
		"second success":              bytes.Replace(body, []byte(`"success":"true"`), []byte(`"success":"true","success":"false"`), 1),
	} {
		if v.Verify(Request{Body: forged}, specTime) == nil {
			t.Errorf("%s: verified", name)
		}
	}
}

func TestTwilioBodyThatIsNoFormNeedsItsDigest(t *testing.T) {
	// The digest is the one that Twilio's libraries test with.
	const digest = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
	body := []byte(`{"property": "value", "boolean": true}`)
	signed, err := SignRequest(Config{Preset: "twilio"}, []byte("12345"), Request{URL: "https://a.example/x?foo=1", Body: body}, specTime, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://a.example/x?foo=1&bodySHA256=" + digest; signed.URL != want {
		t.Fatalf("URL = %s, want %s", signed.URL, want)
	}
	v, err := NewVerifier(Config{Preset: "twilio"}, asBytes([]string{"12345"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Verify(signed, specTime); err != nil {
		t.Fatal(err)
	}
	other := signed
	other.Body = []byte(`{}`)
	if err := v.Verify(other, specTime); !errors.Is(err, ErrBadSignature) {
		t.Errorf("another body: error = %v, want ErrBadSignature", err)
	}
	// What was signed with no body at all must not carry one.
	empty, err := SignRequest(Config{Preset: "twilio"}, []byte("12345"), Request{URL: "https://a.example/x", Header: form}, specTime, "")
	if err != nil {
		t.Fatal(err)
	}
	empty.Body = body
	if v.Verify(empty, specTime) == nil {
		t.Error("verified a body that is not signed")
	}
	empty.Body = []byte(strings.Repeat("a&", maxFormParameters))
	if err := v.Verify(empty, specTime); !errors.Is(err, ErrMalformedSignature) {
		t.Errorf("a form of too many parameters: error = %v, want ErrMalformedSignature", err)
	}
}

func TestHubSpotSignsSomeCharactersDecoded(t *testing.T) {
	if got := decodeChosen("https://a.example/x?q=%40%3a%20%2Fz%", preset("hubspot").DecodedURL); got != "https://a.example/x?q=@:%20/z%" {
		t.Errorf("decoded = %s", got)
	}
}

func TestSignedURLTakesThePlaceOfTheOneRequestsComeTo(t *testing.T) {
	for _, c := range []struct{ signed, query, want string }{
		{"", "", "http://inner/x"},
		{"", "a=1", "http://inner/x?a=1"},
		{"https://outer/y", "", "https://outer/y"},
		{"https://outer/y", "a=1", "https://outer/y?a=1"},
		{"https://outer/y?b=2", "", "https://outer/y?b=2"},
		{"https://outer/y?b=2", "b=2&bodySHA256=00", "https://outer/y?b=2&bodySHA256=00"},
	} {
		v, err := NewVerifier(Config{Preset: "square", SignedURL: c.signed}, asBytes([]string{"s"}))
		if err != nil {
			t.Fatal(err)
		}
		if got := v.URL("http://inner/x", c.query); got != c.want {
			t.Errorf("signed URL %q, query %q: got %s, want %s", c.signed, c.query, got, c.want)
		}
	}
}

func TestGenericTakesEveryHMACAndTheURL(t *testing.T) {
	for _, a := range []Algorithm{HMACSHA1, HMACSHA256, HMACSHA512} {
		cfg := Config{Preset: PresetGeneric, Algorithm: a, Content: "{method} {url}\n{body}", Encoding: Base64}
		r, err := SignRequest(cfg, []byte("s"), Request{Method: "POST", URL: sampleURL, Body: []byte("x")}, specTime, "")
		if err != nil {
			t.Fatal(err)
		}
		v, err := NewVerifier(cfg, asBytes([]string{"s"}))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(r, specTime); err != nil || !v.SignsURL() {
			t.Errorf("algorithm %d: error %v, signs the URL %v", a, err, v.SignsURL())
		}
		r.URL += "2"
		if v.Verify(r, specTime) == nil {
			t.Errorf("algorithm %d: verified another URL", a)
		}
	}
}

func TestEveryPresetSaysWhoseItIsAndWhereThatIsDocumented(t *testing.T) {
	for _, p := range Presets() {
		documented := strings.HasPrefix(p.Documentation, "https://")
		if own := p.Name == PresetNone || p.Name == PresetGeneric; p.Title == "" || documented == own {
			t.Errorf("%s: title %q, documentation %q", p.Name, p.Title, p.Documentation)
		}
	}
}

func TestTheTableHasTheProvidersThatItPromises(t *testing.T) {
	names := make([]string, len(presets))
	for i, p := range Presets() {
		names[i] = p.Name
	}
	for _, name := range []string{"stripe", "github", "gitlab", "shopify", "slack", "twilio", "standard-webhooks", "svix", "linear", "zoom", "pagerduty",
		"square", "hubspot", "paddle", "typeform", "intercom", "sendgrid", "discord", "postmark", "woocommerce", "adyen", "generic", "none"} {
		if !slices.Contains(names, name) {
			t.Errorf("preset %s is missing", name)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	for _, p := range Presets() {
		f.Add(p.Content, []byte(`{"a":"b"}`))
	}
	f.Add("{", []byte(nil))
	f.Add("{json:}{body}", []byte("{}"))
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		content, err := compileTemplate(text)
		if err != nil {
			return
		}
		m := message{id: "i", timestamp: "1", method: "POST", url: "u", form: []byte("f"), body: body}
		whole := content.appendTo(nil, &m)
		var written bytes.Buffer
		content.hashInto(recorder{&written}, nil, &m)
		if !bytes.Equal(whole, written.Bytes()) {
			t.Fatalf("%q: hashed %q, appended %q", text, written.Bytes(), whole)
		}
	})
}

// recorder is a hash that keeps what it is given.
type recorder struct{ *bytes.Buffer }

func (recorder) Sum(b []byte) []byte { return b }
func (recorder) Size() int           { return 0 }
func (recorder) BlockSize() int      { return 1 }

func FuzzEveryPreset(f *testing.F) {
	for i := range presets {
		f.Add(uint8(i), "v0=00", "1614265330", sampleURL, []byte(`{"value":[{"clientState":"x"}]}`))
		f.Add(uint8(i), "", "", "%zz?bodySHA256=", []byte("a=%"))
	}
	verifiers := make([]*Verifier, len(presets))
	for i, p := range presets {
		var secrets [][]byte
		if p.Algorithm != AlgorithmNone {
			secrets = asBytes([]string{newSecretPair(f, p).receiver})
		}
		v, err := NewVerifier(Config{Preset: p.Name}, secrets)
		if err != nil {
			f.Fatal(err)
		}
		verifiers[i] = v
	}
	f.Fuzz(func(t *testing.T, which uint8, signature, timestamp, address string, body []byte) {
		i := int(which) % len(presets)
		p, v := presets[i], verifiers[i]
		h := http.Header{}
		for name, value := range map[string]string{p.Header: signature, p.TimestampHeader: timestamp, p.DeliveryID.Header: "id"} {
			if name != "" {
				h.Set(name, value)
			}
		}
		r := Request{Method: http.MethodPost, URL: address, Header: h, Body: body}
		if v.Verify(r, specTime) == nil && p.Algorithm != AlgorithmNone {
			t.Fatalf("%s: verified what nobody signed", p.Name)
		}
		v.DeliveryID(h, body)
		v.EventType(h, body)
		_, _, _ = v.AnswerGET(address)
		_, _, _ = v.AnswerPOST(r, address, specTime)
	})
}
