package sdktest

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/chaos"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

// What the server delivers is verified by the receivers of both SDKs, with a shared secret (v1) and with a public key (v1a), and with a
// bit flipped it is not. That the published Standard Webhooks and Svix libraries agree is tested in internal/signature.
func testDeliveriesVerify(t *testing.T, s *scene) {
	dev := s.dev
	type delivered struct {
		secret string
		header http.Header
		body   []byte
	}
	var all []delivered
	for _, scheme := range []string{"SIGNING_SCHEME_V1", "SIGNING_SCHEME_V1A"} {
		sink := chaos.NewSink(t)
		var endpoint struct{ Endpoint struct{ ID string } }
		dev.API().Call(t, "EndpointService/CreateEndpoint", map[string]any{"endpoint": map[string]any{}}, &endpoint)
		var destination struct {
			Destination struct{ PublicKeys []string }
			Secret      string
		}
		dev.API().Call(t, "DestinationService/CreateDestination", map[string]any{"destination": map[string]any{
			"endpointId": endpoint.Endpoint.ID, "url": sink.URL, "signing": map[string]any{"scheme": scheme},
		}}, &destination)
		secret := destination.Secret
		if scheme == "SIGNING_SCHEME_V1A" {
			secret = destination.Destination.PublicKeys[0]
		}
		var answer struct{ Receipt struct{ EventID string } }
		dev.API().Call(t, "IngestService/Ingest", map[string]any{"endpointId": endpoint.Endpoint.ID, "payload": []byte{0, 255, 10, '{'}}, &answer)
		await(t, func() string {
			arrival, found := sink.Arrivals()[answer.Receipt.EventID]
			if !found {
				return "nothing has arrived"
			}
			all = append(all, delivered{secret, arrival.Header, arrival.Body})
			return ""
		})
	}

	type question struct {
		Headers map[string]string `json:"headers"`
		Body    []byte            `json:"body"`
		Secrets []string          `json:"secrets"`
	}
	var questions []question
	var want []string
	for i, d := range all {
		id := d.header.Get("webhook-id")
		flipped := bytes.Clone(d.body)
		flipped[1] ^= 4
		for _, try := range []struct {
			body   []byte
			secret string
			want   error
		}{{d.body, d.secret, nil}, {flipped, d.secret, kapsel.ErrSignature}, {d.body, all[1-i].secret, kapsel.ErrSignature}} {
			verifier, err := kapsel.NewVerifier(try.secret)
			if err != nil {
				t.Fatal(err)
			}
			if webhook, err := verifier.Verify(d.header, try.body); !errors.Is(err, try.want) || err == nil && webhook.ID != id {
				t.Errorf("Go: %q with %.5s: %v, want %v", try.body, try.secret, err, try.want)
			}
			q := question{Headers: map[string]string{}, Body: try.body, Secrets: []string{"whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 24)), try.secret}}
			for name := range d.header {
				q.Headers[name] = d.header.Get(name)
			}
			questions = append(questions, q)
			want = append(want, map[bool]string{true: id, false: "no_match"}[try.want == nil])
		}
	}
	dir := s.typeScript(t)
	copyFile(t, "testdata/verify.mjs", dir)
	asked, err := json.Marshal(questions)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "node", "verify.mjs")
	command.Dir, command.Stdin, command.WaitDelay = dir, bytes.NewReader(asked), time.Second
	output, err := command.CombinedOutput()
	var got []string
	if err != nil || json.Unmarshal(output, &got) != nil || !slices.Equal(got, want) {
		t.Errorf("TypeScript: %v: %s, want %v", err, output, want)
	}

	// examples/receiver.ts is a destination that holds both secrets.
	compile(t, dir, "../../sdk/ts/examples/receiver.ts")
	receiver := exec.CommandContext(t.Context(), "node", "receiver.js")
	receiver.Dir, receiver.Env = dir, append(os.Environ(), "PORT=0", "KAPSEL_SECRET="+all[0].secret+","+all[1].secret)
	stdout, err := receiver.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := receiver.Start(); err != nil {
		t.Fatal(err)
	}
	defer receiver.Wait()
	defer receiver.Process.Kill()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	var listening struct{ Port int }
	if err != nil || json.Unmarshal([]byte(strings.TrimPrefix(line, "listening ")), &listening) != nil {
		t.Fatalf("the receiver said %q: %v", line, err)
	}
	address := fmt.Sprintf("http://127.0.0.1:%d/", listening.Port)
	// It does not read what has no end, and goes on.
	endless, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, zeros{})
	if err != nil {
		t.Fatal(err)
	}
	endless.Header = all[0].header.Clone()
	if response, err := http.DefaultClient.Do(endless); err == nil {
		response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("the receiver answered %d to a body without an end", response.StatusCode)
		}
	}
	for _, d := range all {
		for status, body := range map[int][]byte{http.StatusNoContent: d.body, http.StatusUnauthorized: append([]byte("x"), d.body...)} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header = d.header.Clone()
			request.Header.Del("Content-Length")
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != status {
				t.Errorf("the receiver answered %d to %q, want %d", response.StatusCode, body, status)
			}
		}
	}
}

// zeros are a body without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
