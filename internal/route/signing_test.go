package route

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

// A security setting that cannot be honoured stops delivery, and says why; nothing is ever sent with less.
func TestSigningThatCannotBeHonouredStopsDelivery(t *testing.T) {
	r := newRig(t)
	endpoint := r.endpoint(`{"preset":"none"}`, `{}`, `{}`)
	private, public := signature.NewKeyPair()
	spoil := func(destination uuid.UUID, secretID uuid.UUID) {
		r.exec(`update destination_secrets set ciphertext = '\x00' where destination_id = $1 and secret_id = $2`, destination, secretID)
	}
	for _, test := range []struct {
		name, signing string
		secrets       []string // the oldest first
		spoil         bool     // the oldest cannot be decrypted
		want          string   // in the reason; empty: it works
	}{
		{"V1", `{"scheme":"SIGNING_SCHEME_V1"}`, []string{destinationSecret}, false, ""},
		{"V1A", `{"scheme":"SIGNING_SCHEME_V1A"}`, []string{private}, false, ""},
		{"V1A while V1 signs on", `{"scheme":"SIGNING_SCHEME_V1A"}`, []string{destinationSecret, private}, false, ""},
		{"no secret", `{}`, nil, false, "secrets"},
		{"V1A without a key pair", `{"scheme":"SIGNING_SCHEME_V1A"}`, []string{destinationSecret}, false, "V1A"},
		{"V1 with a key pair", `{}`, []string{private}, false, "V1"},
		{"public key", `{"scheme":"SIGNING_SCHEME_V1A"}`, []string{public}, false, "public"},
		{"malformed key", `{"scheme":"SIGNING_SCHEME_V1A"}`, []string{"whsk_AAAA"}, false, "Ed25519"},
		{"scheme of a later version", `{"scheme":"SIGNING_SCHEME_V9"}`, []string{destinationSecret}, false, "SIGNING_SCHEME_V9"},
		{"number of a later version", `{"scheme":9}`, []string{destinationSecret}, false, "unknown"},
		{"setting of a later version", `{"quantumSafe":true}`, []string{destinationSecret}, false, "quantumSafe"},
		{"one of two secrets unreadable", `{}`, []string{destinationSecret, signature.NewSecret()}, true, "decrypted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			destination := r.destination(endpoint, `{}`, `{}`)
			r.exec(`update destinations set signing = $2 where destination_id = $1`, destination, test.signing)
			r.exec(`delete from destination_secrets where destination_id = $1`, destination)
			for i, value := range test.secrets {
				secretID := r.destinationSecret(destination, value)
				r.exec(`update destination_secrets set created_at = now() + $2::float8 * interval '1 s' where secret_id = $1`, secretID, float64(i))
				if i == 0 && test.spoil {
					spoil(destination, secretID)
				}
			}
			got := r.refresh().Destination(destination)
			if got == nil {
				t.Fatal("the destination is not in the snapshot")
			}
			if works := test.want == ""; got.Active != works || (got.Signer != nil) != works || (got.Broken == "") != works {
				t.Errorf("active %v, signer %v, broken %q", got.Active, got.Signer != nil, got.Broken)
			}
			if !strings.Contains(got.Broken, test.want) {
				t.Errorf("reason %q does not say %q", got.Broken, test.want)
			}
			for _, value := range test.secrets {
				if got.Broken != "" && strings.Contains(got.Broken, value) {
					t.Errorf("reason %q quotes a secret", got.Broken)
				}
			}
			if test.want != "" && !strings.Contains(r.logged.String(), id.Destination.Text(destination)) {
				t.Error("the log does not name the destination")
			}
		})
	}
}

func TestSignatureHeadersCanBeNamed(t *testing.T) {
	r := newRig(t)
	endpoint := r.endpoint(`{"preset":"none"}`, `{}`, `{}`)
	destination := r.destination(endpoint, `{}`, `{}`)
	if got := r.refresh().Destination(destination).SignatureHeaders; got != StandardHeaders {
		t.Errorf("by default: %+v", got)
	}
	r.exec(`update destinations set signing = '{"idHeader":"x-acme-id","signatureHeader":"X-ACME-Sig"}' where destination_id = $1`, destination)
	if got, want := r.refresh().Destination(destination).SignatureHeaders, (SignatureHeaders{"X-Acme-Id", "Webhook-Timestamp", "X-Acme-Sig"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
