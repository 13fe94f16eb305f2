package signature

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"testing"
	"time"
)

const (
	specSecret  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	specPrivate = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
	specPublic  = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
	specID      = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	specBody    = `{"test": 2432232314}`
	specV1      = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	specV1a     = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
)

var specTime = time.Unix(1614265330, 0)

// vector is a message whose signature was published, or made by another implementation.
type vector struct {
	name        string
	preset      Preset
	secret      string
	signWith    string // the sender's secret, where it differs
	id          string
	at          int64
	body        string
	url         string
	header      string
	value       string
	signedValue string // what Sign gives, where value holds more
	unsignable  bool   // nobody has the private key, or no two signatures are alike
}

func preset(name string) Preset {
	p, ok := Lookup(name)
	if !ok {
		panic("no preset " + name)
	}
	return p
}

// Those without a preset of their own are other providers: the engine must be able to express them.
var vectors = []vector{
	{
		name: "Standard Webhooks", preset: preset(PresetStandardWebhooks), secret: specSecret,
		id: specID, at: 1614265330, body: specBody, header: "Webhook-Signature", value: specV1,
	},
	{
		name: "Standard Webhooks, secret without prefix", preset: preset(PresetStandardWebhooks), secret: specSecret[len("whsec_"):],
		id: specID, at: 1614265330, body: specBody, header: "Webhook-Signature", value: specV1,
	},
	{
		name: "Standard Webhooks Ed25519", preset: preset(PresetStandardWebhooks), secret: specPublic, signWith: specPrivate,
		id: specID, at: 1614265330, body: specBody, header: "Webhook-Signature", value: specV1a,
	},
	{
		name: "Svix documentation, key of 18 bytes", preset: preset(PresetStandardWebhooks), secret: "whsec_plJ3nmyCDGBKInavdOK15jsl",
		id: "msg_loFOjxBNrRLzqYUf", at: 1731705121, body: `{"event_type":"ping","data":{"success":true}}`,
		header: "Webhook-Signature", value: "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
	},
	{
		name: "Svix Rust library", preset: preset(PresetStandardWebhooks), secret: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
		id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", at: 1649367553, body: `{"email":"test@example.com","username":"test_user"}`,
		header: "Webhook-Signature", value: "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
	},
	{
		name: "GitHub documentation", preset: preset(PresetGitHub), secret: "It's a Secret to Everybody", id: "72d3162e", body: "Hello, World!",
		header: "X-Hub-Signature-256", value: "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
	},
	{
		name: "Stripe", preset: preset(PresetStripe), secret: "whsec_test_secret", at: 1492774577, body: `{"id":"evt_test_webhook","object":"event"}`,
		header: "Stripe-Signature", value: "t=1492774577,v1=88a022085c6bdb887b02cb26ff76dd681234d9675c0f22844059f55552a8883a,v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39",
		signedValue: "t=1492774577,v1=88a022085c6bdb887b02cb26ff76dd681234d9675c0f22844059f55552a8883a",
	},
	{
		name: "Shopify", preset: preset(PresetShopify), secret: "shop-secret", body: `{"id":1}`,
		header: "X-Shopify-Hmac-Sha256", value: "plW8VGqq0nDMIEhDqaNNW99asdUCy7EIqLZVcQwtAZ0=",
	},
	{
		name: "WebhookX", preset: generic(Config{Header: "Webhookx-Signature", Prefix: "v1=", TimestampHeader: "Webhookx-Timestamp"}),
		secret: "QGvaZ0uPwA9nYi7jr31JtZn1EKK4pJpK", at: 1726285679, body: "foo",
		header: "Webhookx-Signature", value: "v1=e2af2618d5ffd700eb369904b7237ec4ac7d37873cfe6654265af2e53b44da6b",
	},
	{
		name: "Linear's scheme, without its timestamp", preset: generic(Config{Header: "Linear-Signature"}), secret: "shop-secret", body: `{"id":1}`,
		header: "Linear-Signature", value: "a655bc546aaad270cc204843a9a34d5bdf5ab1d502cbb108a8b655710c2d019d",
	},
	{
		name: "Slack documentation", preset: preset("slack"), secret: "8f742231b10e8888abcd99yyyzzz85a5", at: 1531420618,
		body:   "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
		header: "X-Slack-Signature", value: "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
	},
	{
		name: "Convoy, SHA-512", preset: Preset{Name: "convoy", Algorithm: HMACSHA512, Header: "X-Convoy-Signature", Content: "{body}"},
		secret: "Convoy", body: "Test Payload Body", header: "X-Convoy-Signature",
		value: "83306382f5361d35351d6de45998f23b52f40bcf96befe4e92f137c0f1bf4a7119388b238d8f9d502ac77e6f1a8849a4778272667ed88d530cac8050bd1fee2d",
	},
	{
		name: "Twilio libraries", preset: preset("twilio"), secret: "12345", url: "https://mycompany.com/myapp.php?foo=1&bar=2",
		body:   "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212",
		header: "X-Twilio-Signature", value: "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
	},
	{
		name: "Twilio libraries, repeated parameters", preset: preset("twilio"), secret: "12345", url: "https://mycompany.com/myapp.php?foo=1&bar=2",
		body:   "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234",
		header: "X-Twilio-Signature", value: "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
	},
	{
		name: "SendGrid libraries", preset: preset("sendgrid"), at: 1588788367,
		secret:     "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEDr2LjtURuePQzplybdC+u4CwrqDqBaWjcMMsTbhdbcwHBcepxo7yAQGhHPTnlvFYPAZFceEu/1FwCM/QmGUhA==",
		body:       `{"category":"example_payload","event":"test_event","message_id":"message_id"}`,
		header:     "X-Twilio-Email-Event-Webhook-Signature",
		value:      "MEUCIQCtIHJeH93Y+qpYeWrySphQgpNGNr/U+UyUlBkU6n7RAwIgJTz2C+8a8xonZGi6BpSzoQsbVRamr2nlxFDWYNH2j/0=",
		unsignable: true,
	},
	{
		name: "Hook0, list with another version", secret: "a-subscription-secret", at: 1800000000, body: `{"event":"user.created"}`,
		preset: Preset{Name: "hook0", Algorithm: HMACSHA256, Header: "X-Hook0-Signature", Separator: ",", Prefix: "v0=", TimestampPrefix: "t=", Content: "{timestamp}.{body}", Tolerance: defaultTolerance},
		header: "X-Hook0-Signature", value: "t=1800000000,v0=d17d66b66fca89390c5b967c45e8928fc732db07a0aabe8167b1e98213081ffe",
	},
}

func generic(cfg Config) Preset {
	cfg.Preset = PresetGeneric
	p, err := cfg.preset()
	if err != nil {
		panic(err)
	}
	return p
}

// request is the vector's headers, written out rather than made by Sign.
func (v vector) request() http.Header {
	h := http.Header{}
	h.Set(v.header, v.value)
	if v.preset.TimestampHeader != "" {
		h.Set(v.preset.TimestampHeader, strconv.FormatInt(v.at, 10))
	}
	if v.preset.DeliveryID.Header != "" && v.id != "" {
		h.Set(v.preset.DeliveryID.Header, v.id)
	}
	return h
}

func (v vector) verifier(t testing.TB) checker {
	t.Helper()
	verifier, err := newVerifier(v.preset, [][]byte{[]byte(v.secret)})
	if err != nil {
		t.Fatal(err)
	}
	return checker{verifier, v.url}
}

func (v vector) sign(t testing.TB, body []byte) http.Header {
	t.Helper()
	secret := v.signWith
	if secret == "" {
		secret = v.secret
	}
	r, err := signRequest(v.preset, []byte(secret), Request{Method: http.MethodPost, URL: v.url, Header: form, Body: body}, time.Unix(v.at, 0), v.id)
	if err != nil {
		t.Fatal(err)
	}
	return r.Header
}

var form = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}

// checker is a verifier of posts to one URL.
type checker struct {
	*Verifier
	url string
}

func (c checker) Verify(h http.Header, body []byte, now time.Time) error {
	return c.Verifier.Verify(Request{Method: http.MethodPost, URL: c.url, Header: h, Body: body}, now)
}

func TestKnownMessagesVerify(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			if err := v.verifier(t).Verify(v.request(), []byte(v.body), time.Unix(v.at, 0)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSignGivesTheKnownSignature(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			want := v.signedValue
			if want == "" {
				want = v.value
			}
			if v.unsignable {
				t.Skip("its private key is not published")
			}
			if got := v.sign(t, []byte(v.body)).Get(v.header); got != want {
				t.Errorf("%s = %q, want %q", v.header, got, want)
			}
		})
	}
}

// RFC 9421 section B.2.5 signs a text of its own; as a body it tests the MAC and the encoding.
func TestHMACOfRFC9421(t *testing.T) {
	secret, err := base64.StdEncoding.DecodeString("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
	if err != nil {
		t.Fatal(err)
	}
	body := "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@authority\": example.com\n\"content-type\": application/json\n" +
		`"@signature-params": ("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`
	v, err := NewVerifier(Config{Preset: PresetGeneric, Encoding: Base64}, [][]byte{secret})
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{"X-Signature": {"pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="}}
	if err := v.Verify(Request{Header: h, Body: []byte(body)}, time.Time{}); err != nil {
		t.Error(err)
	}
}

func TestUpperCaseHexVerifies(t *testing.T) {
	v := vector{preset: preset(PresetGitHub), secret: "shop-secret", body: `{"id":1}`, header: "X-Hub-Signature-256"}
	h := http.Header{v.header: {"sha256=A655BC546AAAD270CC204843A9A34D5BDF5AB1D502CBB108A8B655710C2D019D"}}
	if err := v.verifier(t).Verify(h, []byte(v.body), time.Time{}); err != nil {
		t.Error(err)
	}
}

func TestNoneVerifiesEverything(t *testing.T) {
	v, err := NewVerifier(Config{Preset: PresetNone}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Verify(Request{Body: []byte("x")}, time.Time{}); err != nil {
		t.Error(err)
	}
	if id, ok := v.DeliveryID(http.Header{}, []byte(`{"id":"1"}`)); ok {
		t.Errorf("delivery id = %q, want none", id)
	}
}

func TestAnyOfSeveralSecretsVerifies(t *testing.T) {
	for _, v := range vectors[:2] {
		for _, secrets := range [][]string{{NewSecret(), v.secret}, {v.secret, NewSecret()}, {specPublic, v.secret}} {
			verifier, err := newVerifier(v.preset, asBytes(secrets))
			if err != nil {
				t.Fatal(err)
			}
			if err := verifier.Verify(Request{Header: v.request(), Body: []byte(v.body)}, time.Unix(v.at, 0)); err != nil {
				t.Error(err)
			}
		}
	}
	other, err := newVerifier(vectors[0].preset, asBytes([]string{NewSecret(), NewSecret(), specPublic}))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Verify(Request{Header: vectors[0].request(), Body: []byte(specBody)}, specTime); !errors.Is(err, ErrBadSignature) && !errors.Is(err, ErrMalformedSignature) {
		t.Errorf("with other secrets only: error = %v", err)
	}
}

func asBytes(secrets []string) (all [][]byte) {
	for _, s := range secrets {
		all = append(all, []byte(s))
	}
	return all
}
