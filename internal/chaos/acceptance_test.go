package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// handWritten is like what GitHub sends, with what is easily damaged on the way: white space, escapes, characters beyond
// ASCII, a number that no float holds, an empty key, a repeated one, and no newline at the end.
const handWritten = "{\r\n  \"zen\": \"Responsive is better than fast.\",\t\"hook_id\": 12345678901234567890,\n" +
	"  \"\": null, \"repository\": {\"full_name\": \"Codertocat/Hello-World\", \"description\": \"caf\u00e9 \\u00e9 \u2028 \\/ \\ud83d\\ude00 \U0001F600\"},\n" +
	"  \"a\": 1.0, \"a\": 1.00e+2, \"sender\": {\"login\": \"Codertocat\", \"id\": 21031067}  }  "

// What a newcomer does: start, post a signed webhook, see it delivered, prove that offline.
func TestFromWebhookToProof(t *testing.T) {
	t.Parallel()
	ctx, _ := scenario(t)
	dev := StartDev(t, "127.0.0.1:0")
	sink := NewSink(t)
	route := dev.API().CreateRoute(t, sink.URL)
	ingestURL := dev.Ready.URL + "/ingest/" + route.EndpointID

	t.Run("a hand-written payload", func(t *testing.T) {
		passUnchanged(ctx, t, ingestURL, route, sink, []Example{{"ping", []byte(handWritten)}})
	})
	t.Run("all examples of GitHub", func(t *testing.T) {
		examples := GitHubExamples(t)
		t.Logf("%d examples", len(examples))
		passUnchanged(ctx, t, ingestURL, route, sink, examples)
	})
	t.Run("the command line", func(t *testing.T) { checkCommands(t, dev) })
}

// passUnchanged posts payloads and compares what comes out, byte for byte.
func passUnchanged(ctx context.Context, t *testing.T, ingestURL string, route Route, sink *Sink, examples []Example) {
	t.Helper()
	receiver, err := standardwebhooks.NewWebhook(route.DestinationSecret)
	if err != nil {
		t.Fatalf("the destination's secret is not one of Standard Webhooks: %v", err)
	}
	posted := make([]Posted, len(examples))
	for i, example := range examples {
		deliveryID := fmt.Sprintf("%s-%d", t.Name(), i)
		status, answer, err := Post(ctx, http.DefaultClient, ingestURL, route.Secret, deliveryID, example.Event, example.Body)
		var receipt struct {
			EventID   string `json:"event_id"`
			State     string
			Duplicate bool
		}
		if err != nil || status != http.StatusAccepted || json.Unmarshal(answer, &receipt) != nil || receipt.State != "accepted" || receipt.Duplicate {
			t.Fatalf("example %d, %s: status %d, error %v: %s", i, example.Event, status, err, answer)
		}
		posted[i] = Posted{DeliveryID: deliveryID, EventID: receipt.EventID}
	}
	sink.AwaitAll(t, posted, settlePatience)
	arrivals := sink.Arrivals()
	for i, p := range posted {
		arrival, body := arrivals[p.EventID], examples[i].Body
		if !bytes.Equal(arrival.Body, body) || arrival.Count != 1 {
			t.Errorf("example %d, %s: arrived %d times, the first with %d bytes: want once, with the same %d bytes",
				i, examples[i].Event, arrival.Count, len(arrival.Body), len(body))
			continue
		}
		if err := receiver.Verify(arrival.Body, arrival.Header); err != nil {
			t.Errorf("example %d: the delivery's signature: %v", i, err)
		}
		// What the source has signed must still verify behind Kapsel, with the source's own header.
		for name, want := range map[string]string{
			"X-Github-Event": examples[i].Event, "X-Github-Delivery": p.DeliveryID, "Content-Type": "application/json",
			"X-Hub-Signature-256": GitHubSignature(route.Secret, arrival.Body),
		} {
			if got := arrival.Header.Get(name); got != want {
				t.Errorf("example %d arrived with %s %q: want %q", i, name, got, want)
			}
		}
	}
}

func checkCommands(t *testing.T, dev *Dev) {
	dir := t.TempDir()
	payload, proof := filepath.Join(dir, "push.json"), filepath.Join(dir, "proof.json")
	if err := os.WriteFile(payload, []byte(handWritten), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := Run(t, "send", "--data-dir", dev.dir, "--preset", "github", "--event", "push", payload)
	var receipt struct {
		EventID string `json:"event_id"`
	}
	if code != 0 || json.Unmarshal([]byte(stdout), &receipt) != nil || receipt.EventID == "" {
		t.Fatalf("kapsel send: exit code %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr = Run(t, "proof", receipt.EventID, "-o", proof, "--data-dir", dev.dir); code != 0 {
		t.Fatalf("kapsel proof: exit code %d\n%s%s", code, stdout, stderr)
	}
	key := dev.Ready.PublicKey
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"with the key":              {[]string{"--key", key}, 0, "full proof"},
		"with the served log":       {[]string{"--key", key, "--url", dev.Ready.LogURL}, 0, "stands by"},
		"without a key":             {nil, 1, "not checked"},
		"with another log's key":    {[]string{"--key", otherKey}, 1, "refused"},
		"with a key that is none":   {[]string{"--key", "no key"}, 2, "key"},
		"with a log that isn't one": {[]string{"--key", key, "--url", dev.Ready.URL + "/log/2"}, 1, "served"},
	} {
		code, stdout, stderr := Run(t, append([]string{"verify", proof}, c.args...)...)
		if code != c.code || !strings.Contains(strings.ToLower(stdout+stderr), c.says) {
			t.Errorf("kapsel verify %s: exit code %d: want %d and %q in\n%s%s", name, code, c.code, c.says, stdout, stderr)
		}
	}
	if code, _, stderr := Run(t, "verify", filepath.Join(dir, "none.json"), "--key", key); code == 0 || stderr == "" {
		t.Errorf("kapsel verify of a file that does not exist: exit code %d, %q", code, stderr)
	}
	data, err := os.ReadFile(proof)
	if err != nil {
		t.Fatal(err)
	}
	checkFlips(t, data, key)
	checkFlipByCommand(t, data, key)
	checkAttempt(t, data, receipt.EventID)
}

// otherKey is a well-formed verifier key of nobody's log: that of the Go checksum database.
const otherKey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

// checkFlips changes each byte of a package, one at a time, and expects a refusal with a reason.
func checkFlips(t *testing.T, data []byte, key string) {
	t.Helper()
	options := verify.Options{TrustedKeys: []string{key}}
	if report, err := verify.Verify(data, options); err != nil || !report.Full {
		t.Fatalf("verify the package as it is: %v, %+v", err, report)
	}
	r := NewRandom(t)
	for i := range data {
		changed := bytes.Clone(data)
		changed[i] ^= 1 << r.IntN(8)
		_, err := verify.Verify(changed, options)
		var refused *verify.Error
		if !errors.As(err, &refused) || refused.Check == "" || refused.Reason == "" {
			t.Errorf("byte %d changed from %q to %q, and the package is not refused with a reason: %v", i, data[i], changed[i], err)
		}
	}
}

func checkFlipByCommand(t *testing.T, data []byte, key string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "flipped.json")
	for share := range 8 {
		changed := bytes.Clone(data)
		changed[share*len(data)/8+len(data)/16] ^= 1
		if err := os.WriteFile(file, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := Run(t, "verify", file, "--key", key)
		if code != 1 || !strings.Contains(stderr, "refused: ") {
			t.Errorf("kapsel verify of a changed package: exit code %d: want 1 and a reason\n%s%s", code, stdout, stderr)
		}
	}
}

// checkAttempt looks at what the package says to people.
func checkAttempt(t *testing.T, data []byte, eventID string) {
	t.Helper()
	p, err := verify.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	var attempt struct {
		EventID      string    `json:"event_id"`
		Outcome      string    `json:"outcome"`
		PayloadBytes int       `json:"payload_bytes"`
		ReceivedAt   time.Time `json:"received_at"`
		Verification string    `json:"intake_verification"`
	}
	if err := json.Unmarshal(p.Attempt, &attempt); err != nil {
		t.Fatal(err)
	}
	if attempt.EventID != eventID || attempt.Outcome != "succeeded" || attempt.PayloadBytes != len(handWritten) ||
		attempt.Verification != "github" || time.Since(attempt.ReceivedAt) > scenarioTime {
		t.Errorf("the package is of another attempt: %s", p.Attempt)
	}
}
