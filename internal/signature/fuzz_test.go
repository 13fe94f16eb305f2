package signature

import (
	"net/http"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// FuzzVerify feeds headers to every scheme. Nothing may panic, and what Standard Webhooks
// verification lets pass, the reference library must let pass too.
func FuzzVerify(f *testing.F) {
	verifiers := make([]checker, len(vectors))
	for i, v := range vectors {
		verifiers[i] = v.verifier(f)
		h := v.request()
		f.Add(uint8(i), v.value, h.Get(v.preset.TimestampHeader), v.id, []byte(v.body))
	}
	for _, value := range []string{"", " ", "v1,", "v1,v1,v1,", "t=,t=,v1=", specV1 + " " + specV1, "v1a," + specV1, "sha256=", ",,,,=", "v1,\n=="} {
		for i := range vectors {
			f.Add(uint8(i), value, "1614265330", specID, []byte(specBody))
		}
	}
	references := map[int]*standardwebhooks.Webhook{}
	for _, i := range []int{0, 3, 4} {
		reference, err := standardwebhooks.NewWebhook(vectors[i].secret)
		if err != nil {
			f.Fatal(err)
		}
		references[i] = reference
	}
	f.Fuzz(func(t *testing.T, which uint8, value, timestamp, id string, body []byte) {
		i := int(which) % len(vectors)
		v := vectors[i]
		h := http.Header{}
		h.Set(v.header, value)
		if v.preset.TimestampHeader != "" {
			h.Set(v.preset.TimestampHeader, timestamp)
		}
		if v.preset.DeliveryID.Header != "" {
			h.Set(v.preset.DeliveryID.Header, id)
		}
		err := verifiers[i].Verify(h, body, time.Unix(v.at, 0))
		verifiers[i].DeliveryID(h, body)
		verifiers[i].EventType(h, body)
		if err != nil {
			return
		}
		if string(body) != v.body {
			t.Fatalf("%s: verified a body that was never signed: %q", v.name, body)
		}
		if reference := references[i]; reference != nil {
			if err := reference.VerifyIgnoringTimestamp(body, h); err != nil {
				t.Fatalf("verified %q, which the reference library refuses: %v", value, err)
			}
		}
	})
}
