package signature

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"
)

func TestWhatWasSignedVerifiesUnlessABitFlips(t *testing.T) {
	configs := []Config{
		{Preset: PresetGitHub}, {Preset: PresetShopify}, {Preset: PresetStripe}, {Preset: PresetStandardWebhooks}, {Preset: PresetGeneric},
		{Preset: PresetGeneric, Header: "X-Sig", Encoding: Base64, Prefix: "Bearer ", TimestampHeader: "X-Time", Content: "{body}|{timestamp}", Tolerance: time.Minute},
	}
	rapid.Check(t, func(t *rapid.T) {
		cfg := rapid.SampledFrom(configs).Draw(t, "config")
		raw := rapid.SliceOfN(rapid.Byte(), 1, 80).Draw(t, "secret")
		body := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body")
		now := time.Unix(rapid.Int64Range(1, 1<<33).Draw(t, "now"), 0)
		secret := raw
		if cfg.Preset == PresetStandardWebhooks {
			secret = []byte("whsec_" + base64.StdEncoding.EncodeToString(raw))
		}
		h, err := Sign(cfg, secret, body, now, "msg_1")
		if err != nil {
			t.Fatal(err)
		}
		v, err := NewVerifier(cfg, [][]byte{secret})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(Request{Header: h, Body: body}, now); err != nil {
			t.Fatalf("own signature: %v", err)
		}
		if len(body) > 0 {
			bit := rapid.IntRange(0, 8*len(body)-1).Draw(t, "bit")
			body[bit/8] ^= 1 << (bit % 8)
			if v.Verify(Request{Header: h, Body: body}, now) == nil {
				t.Fatalf("verified with bit %d flipped", bit)
			}
		}
	})
}

func TestSignRefusesWhatWouldNotVerify(t *testing.T) {
	for _, c := range []struct {
		name       string
		cfg        Config
		secret, id string
		want       string
	}{
		{"no id", Config{Preset: PresetStandardWebhooks}, specSecret, "", "signs the delivery id"},
		{"id with a full stop", Config{Preset: PresetStandardWebhooks}, specSecret, "a.b", "full stop"},
		{"id with a line break", Config{Preset: PresetGitHub}, "s", "a\r\nX: y", "plain text"},
		{"public key", Config{Preset: PresetStandardWebhooks}, specPublic, "a", "needs the private one"},
		{"mismatched key pair", Config{Preset: PresetStandardWebhooks}, strings.Replace(specPrivate, "whsk_6", "whsk_7", 1), "a", "does not belong"},
		{"half a key pair", Config{Preset: PresetStandardWebhooks}, "whsk_" + specPublic[5:], "a", "want 64"},
		{"empty secret", Config{Preset: PresetGitHub}, "", "a", "secret is empty"},
		{"unknown preset", Config{Preset: "nonesuch"}, "s", "a", "unknown"},
	} {
		if _, err := Sign(c.cfg, []byte(c.secret), nil, specTime, c.id); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error = %v, want one that says %q", c.name, err, c.want)
		}
	}
	h, err := Sign(Config{Preset: PresetNone}, nil, nil, specTime, "a")
	if err != nil || len(h) != 0 {
		t.Errorf("none: headers %v, error %v, want neither", h, err)
	}
}

func TestOutboundSignatureListsOneOfEachSecret(t *testing.T) {
	s, err := NewSigner(asBytes([]string{specSecret, specPrivate, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // pooled states must not carry anything over
		items := strings.Split(s.Sign(specID, specTime, []byte(specBody)), " ")
		if len(items) != 3 || items[0] != specV1 || items[1] != specV1a || !strings.HasPrefix(items[2], "v1,") || items[2] == specV1 {
			t.Fatalf("signatures = %q", items)
		}
	}
}

func TestSignerRefusesSecretsItCannotSignWith(t *testing.T) {
	for name, c := range map[string]struct {
		secrets []string
		want    string
	}{
		"none":       {nil, "1 to 8 secrets"},
		"nine":       {strings.Split(strings.Repeat(specSecret+",", 8)+specSecret, ","), "1 to 8 secrets"},
		"empty":      {[]string{specSecret, ""}, "secret 2 is empty"},
		"public key": {[]string{specPublic}, "secret 1 is a public key"},
		"no base64":  {[]string{"whsec_*"}, "not padded standard base64"},
	} {
		if _, err := NewSigner(asBytes(c.secrets)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error = %v, want one that says %q", name, err, c.want)
		}
	}
}

// The reference library takes what we sign, and we take what it signs.
func TestReferenceLibraryAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := NewSecret()
		id := rapid.StringMatching(`[A-Za-z0-9_-]{1,40}`).Draw(t, "id")
		body := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "body")
		at := time.Unix(rapid.Int64Range(1, 1<<33).Draw(t, "at"), 0)
		reference, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := NewSigner(asBytes([]string{NewSecret(), secret}))
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		h.Set("webhook-id", id)
		h.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
		h.Set("webhook-signature", signer.Sign(id, at, body))
		if err := reference.VerifyIgnoringTimestamp(body, h); err != nil {
			t.Fatalf("reference library refuses our signature: %v", err)
		}
		theirs, err := reference.Sign(id, at, body)
		if err != nil {
			t.Fatal(err)
		}
		h.Set("webhook-signature", theirs)
		v, err := NewVerifier(Config{Preset: PresetStandardWebhooks}, asBytes([]string{secret}))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(Request{Header: h, Body: body}, at); err != nil {
			t.Fatalf("we refuse the reference library's signature: %v", err)
		}
	})
}

func TestNewSecretsAreUsableAndDiffer(t *testing.T) {
	a, b := NewSecret(), NewSecret()
	if a == b {
		t.Error("two new secrets are equal")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(a, "whsec_"))
	if err != nil || len(raw) != 32 || !strings.HasPrefix(a, "whsec_") {
		t.Errorf("secret decodes to %d bytes, error %v; want whsec_ and 32", len(raw), err)
	}
	private, public := NewKeyPair()
	signer, err := NewSigner(asBytes([]string{a, private}))
	if err != nil {
		t.Fatal(err)
	}
	h := vectors[0].request()
	h.Set("Webhook-Signature", signer.Sign(specID, specTime, []byte(specBody)))
	for _, secret := range []string{a, public} {
		v, err := NewVerifier(Config{Preset: PresetStandardWebhooks}, asBytes([]string{secret}))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(Request{Header: h, Body: []byte(specBody)}, specTime); err != nil {
			t.Errorf("receiver with %.5s: %v", secret, err)
		}
	}
}
