package signature

import (
	"bytes"
	"strconv"
	"testing"
	"time"
)

// During a rotation the receivers' libraries take what we sign, whichever of the secrets they hold, and refuse a flipped bit.
func TestReceiversLibrariesTakeEitherSecretOfARotation(t *testing.T) {
	if testing.Short() {
		t.Skip("runs Node.js")
	}
	dir := fetchLibraries(t)
	other := NewSecret()
	private, _ := NewKeyPair()
	secrets := []string{NewSecret(), NewSecret(), private}
	signer, err := NewSigner(asBytes(secrets))
	if err != nil {
		t.Fatal(err)
	}
	const messageID = "evt_01h455vb4pex5vsknk084sn02q"
	now := time.Now()
	body := []byte(`{"type":"invoice.paid","data":{"id":7}}`)
	headers := map[string]string{
		"webhook-id": messageID, "webhook-timestamp": strconv.FormatInt(now.Unix(), 10), "webhook-signature": signer.Sign(messageID, now, body),
	}
	forged := bytes.Clone(body)
	forged[len(forged)-3] ^= 1
	var input struct {
		Sign   []libraryMessage `json:"sign"`
		Verify []libraryMessage `json:"verify"`
	}
	input.Sign = []libraryMessage{}
	var want []bool
	for _, library := range []string{"standard-webhooks", "svix"} {
		for _, try := range []struct {
			secret string
			body   []byte
			want   bool
		}{{secrets[0], body, true}, {secrets[1], body, true}, {other, body, false}, {secrets[0], forged, false}, {secrets[1], forged, false}} {
			input.Verify = append(input.Verify, libraryMessage{Preset: library, Secret: try.secret, Body: string(try.body), Headers: headers})
			want = append(want, try.want)
		}
	}
	var output struct{ Verify []bool }
	runLibraries(t, dir, input, &output)
	if len(output.Verify) != len(want) {
		t.Fatalf("%d answers to %d questions", len(output.Verify), len(want))
	}
	for i, taken := range output.Verify {
		if taken != want[i] {
			t.Errorf("%s, question %d: taken %v, want %v", input.Verify[i].Preset, i, taken, want[i])
		}
	}
}
