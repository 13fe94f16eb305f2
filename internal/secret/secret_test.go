package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/secret"
)

const hidden = "hunter2-very-secret"

type holder struct {
	Public  secret.Secret
	private secret.Secret
	pointer *secret.Secret
}

func TestNoWayOfPrintingShowsASecret(t *testing.T) {
	s := secret.New([]byte(hidden))
	values := map[string]any{
		"value": s, "pointer": &s, "slice": []secret.Secret{s}, "map": map[string]secret.Secret{"k": s},
		"struct": holder{Public: s, private: s, pointer: &s}, "struct pointer": &holder{Public: s, private: s, pointer: &s},
	}
	// How the bytes would look under the verbs that do not print text.
	leaks := []string{hidden, fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden), strings.Trim(fmt.Sprint([]byte(hidden)), "[]"), "0x68, 0x75"}
	for name, v := range values {
		outputs := map[string]string{}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%p", "%w"} {
			outputs[verb] = fmt.Sprintf(verb, v)
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		outputs["slog"] = log.String()
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%s: marshal: %v", name, err)
		}
		outputs["json"] = string(text)
		for how, out := range outputs {
			for _, leak := range leaks {
				if strings.Contains(out, leak) {
					t.Errorf("%s of a %s shows the secret: %s", how, name, out)
				}
			}
		}
	}
}

func TestSecretPrintsAsRedacted(t *testing.T) {
	s := secret.New([]byte(hidden))
	text, err := s.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for how, got := range map[string]string{
		"String": s.String(), "GoString": s.GoString(), "Format": fmt.Sprintf("%#x", s), "LogValue": s.LogValue().String(),
		"MarshalText": string(text), "MarshalJSON": strings.Trim(string(quoted), `"`),
	} {
		if got != "[redacted]" {
			t.Errorf("%s = %q, want [redacted]", how, got)
		}
	}
}

func TestSecretCannotBeAQueryParameter(t *testing.T) {
	if v, err := secret.New([]byte(hidden)).Value(); err == nil {
		t.Errorf("Value = %v, want an error", v)
	}
}

func TestRevealGivesTheBytesAsTheyWere(t *testing.T) {
	b := []byte(hidden)
	s := secret.New(b)
	clear(b)
	if got := string(s.Reveal()); got != hidden {
		t.Errorf("Reveal = %q after the caller cleared its copy, want %q", got, hidden)
	}
	if got := (secret.Secret{}).Reveal(); got != nil {
		t.Errorf("zero Secret reveals %q, want nil", got)
	}
}
