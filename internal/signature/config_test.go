package signature

import (
	"strings"
	"testing"
	"time"
)

func TestWrongConfigurationIsRefusedWithTheRemedy(t *testing.T) {
	const good = "some secret"
	public, private := specPublic, specPrivate
	for _, c := range []struct {
		name    string
		cfg     Config
		secrets []string
		want    string
	}{
		{"no preset", Config{}, []string{good}, "use one of none, generic, standard-webhooks"},
		{"unknown preset", Config{Preset: "gitbub"}, []string{good}, `"gitbub" is unknown`},
		{"no secret", Config{Preset: PresetGitHub}, nil, "needs at least one secret"},
		{"empty secret", Config{Preset: PresetGitHub}, []string{""}, "secret 1 is empty"},
		{"second secret empty", Config{Preset: PresetGitHub}, []string{good, ""}, "secret 2 is empty"},
		{"too many secrets", Config{Preset: PresetGitHub}, strings.Split(strings.Repeat("s,", 8)+"s", ","), "at most 8"},
		{"secret for none", Config{Preset: PresetNone}, []string{good}, "remove the secrets"},
		{"empty whsec", Config{Preset: PresetStandardWebhooks}, []string{"whsec_"}, "secret 1 is empty"},
		{"unpadded secret", Config{Preset: PresetStandardWebhooks}, []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa"}, "not padded standard base64"},
		{"text for base64", Config{Preset: PresetStandardWebhooks}, []string{"It's a secret"}, "not padded standard base64"},
		{"private key", Config{Preset: PresetStandardWebhooks}, []string{private}, "give its public key (whpk_)"},
		{"short public key", Config{Preset: PresetStandardWebhooks}, []string{"whpk_" + public[9:]}, "want 32"},
		{"public key not base64", Config{Preset: PresetStandardWebhooks}, []string{"whpk_%"}, "not padded standard base64"},
		{"fixed header", Config{Preset: PresetGitHub, Header: "X-Other"}, []string{good}, "fixes its header"},
		{"fixed encoding", Config{Preset: PresetGitHub, Encoding: Base64}, []string{good}, "fixes its encoding"},
		{"fixed prefix", Config{Preset: PresetGitHub, Prefix: "sha1="}, []string{good}, "fixes its prefix"},
		{"fixed content", Config{Preset: PresetGitHub, Content: "{body}"}, []string{good}, "fixes its signed content"},
		{"fixed timestamp header", Config{Preset: PresetGitHub, TimestampHeader: "Date"}, []string{good}, "fixes its timestamp header"},
		{"tolerance without timestamp", Config{Preset: PresetGitHub, Tolerance: time.Minute}, []string{good}, "leave out the tolerance"},
		{"generic tolerance without timestamp", Config{Preset: PresetGeneric, Tolerance: time.Minute}, []string{good}, "leave out the tolerance"},
		{"negative tolerance", Config{Preset: PresetStripe, Tolerance: -1}, []string{good}, "outside 1s to 24h"},
		{"huge tolerance", Config{Preset: PresetStripe, Tolerance: 25 * time.Hour}, []string{good}, "outside 1s to 24h"},
		{"header with a space", Config{Preset: PresetGeneric, Header: "X Signature"}, []string{good}, "not a header name"},
		{"header beyond ASCII", Config{Preset: PresetGeneric, Header: "X-Sïgnature"}, []string{good}, "not a header name"},
		{"timestamp header with a colon", Config{Preset: PresetGeneric, TimestampHeader: "Date:"}, []string{good}, "not a header name"},
		{"one header for both", Config{Preset: PresetGeneric, TimestampHeader: "x-signature"}, []string{good}, "both the signature and the timestamp"},
		{"unknown encoding", Config{Preset: PresetGeneric, Encoding: 9}, []string{good}, "use hex or base64"},
		{"control character in prefix", Config{Preset: PresetGeneric, Prefix: "a\n"}, []string{good}, "printable ASCII"},
		{"long prefix", Config{Preset: PresetGeneric, Prefix: strings.Repeat("p", 33)}, []string{good}, "at most 32 bytes"},
		{"content without body", Config{Preset: PresetGeneric, Content: "x"}, []string{good}, "{body} exactly once"},
		{"content with body twice", Config{Preset: PresetGeneric, Content: "{body}{body}"}, []string{good}, "{body} exactly once"},
		{"content with an unknown word", Config{Preset: PresetGeneric, Content: "{host}{body}"}, []string{good}, "{host} is none of"},
		{"content with a form", Config{Preset: PresetGeneric, Content: "{form}{body}"}, []string{good}, "{method} and {url} only"},
		{"content with a member", Config{Preset: PresetGeneric, Content: "{json:id}{body}"}, []string{good}, "{method} and {url} only"},
		{"fixed algorithm", Config{Preset: PresetGitHub, Algorithm: HMACSHA1}, []string{good}, "fixes its algorithm"},
		{"no HMAC", Config{Preset: PresetGeneric, Algorithm: Ed25519}, []string{good}, "HMACs only"},
		{"signed URL beside a preset that signs none", Config{Preset: PresetGitHub, SignedURL: "https://a.example/"}, []string{good}, "signs no URL"},
		{"relative signed URL", Config{Preset: "square", SignedURL: "/hooks"}, []string{good}, "absolute http or https URL"},
		{"signed URL with a fragment", Config{Preset: "square", SignedURL: "https://a.example/#x"}, []string{good}, "fragment"},
		{"no hex", Config{Preset: "adyen"}, []string{good}, "is not hex"},
		{"no user", Config{Preset: "postmark"}, []string{good}, "user:password"},
		{"text for an Ed25519 key", Config{Preset: "discord"}, []string{good}, "Ed25519 public key in hex"},
		{"short Ed25519 key", Config{Preset: "discord"}, []string{"abcd"}, "want 32"},
		{"text for an ECDSA key", Config{Preset: "sendgrid"}, []string{good}, "ECDSA P-256 public key"},
		{"verify token alone", Config{Preset: "meta"}, []string{"verify_token:" + good}, "a secret that it signs with"},
		{"empty verify token", Config{Preset: "meta"}, []string{good, "verify_token:"}, "has nothing after verify_token:"},
		{"content with an open brace", Config{Preset: PresetGeneric, Content: "{body}{"}, []string{good}, "is none of"},
		{"content with id", Config{Preset: PresetGeneric, Content: "{id}{body}"}, []string{good}, "no delivery id header"},
		{"unsigned timestamp", Config{Preset: PresetGeneric, TimestampHeader: "Date", Content: "{body}"}, []string{good}, "must hold {timestamp} if"},
		{"timestamp from nowhere", Config{Preset: PresetGeneric, Content: "{timestamp}.{body}"}, []string{good}, "must hold {timestamp} if"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := NewVerifier(c.cfg, asBytes(c.secrets))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error = %v, want one that says %q", err, c.want)
			}
			for _, s := range c.secrets {
				if len(s) > 6 && s != prefixVerifyToken && strings.Contains(err.Error(), s) {
					t.Errorf("error quotes the secret: %v", err)
				}
			}
		})
	}
}

func TestAllMistakesAreNamedAtOnce(t *testing.T) {
	_, err := NewVerifier(Config{Preset: PresetGitHub, Header: "X", Prefix: "p", Tolerance: 1}, nil)
	for _, want := range []string{"header", "prefix", "tolerance"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want one that names the %s", err, want)
		}
	}
}

func TestEveryPresetCompiles(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Presets() {
		if seen[p.Name] {
			t.Errorf("preset %s is there twice", p.Name)
		}
		seen[p.Name] = true
		if _, err := compile(p); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if p.DeliveryID.Header != "" && p.DeliveryID.JSON != nil || p.EventType.Header != "" && p.EventType.JSON != nil {
			t.Errorf("%s: a field stands in two places", p.Name)
		}
	}
}
