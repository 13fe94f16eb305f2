package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/kapsel-dev/kapsel/internal/signature"
)

// view is what a page shows.
type view struct {
	signature.Preset
	Text text

	Rows   []row
	Legend string
	Limits []string

	// Token says that the secret itself is sent.
	Token bool
	// Secrets is what --secrets is given, SendSecret what --secret of kapsel send is. Shell.
	Secrets, SendSecret string
	// Unknown is a secret that nobody knows, until the provider shows its own; Shown stands for that one. Shell.
	Unknown, Shown string
	// Generated finds the secret that was generated. A regular expression.
	Generated string
	// Send are the flags of kapsel send that say more than preset, address and secret.
	Send string
	// Type and Key are what the payload has, "" where it has none.
	Type, Key string
	Repeats   bool
}

type row struct{ Name, Text string }

func newView(p signature.Preset) (view, error) {
	t, err := readText(p.Name)
	if err != nil {
		return view{}, err
	}
	v := view{Preset: p, Text: t, Legend: legend(p.Content), Limits: knownLimits(p), Secrets: `"$secret"`, SendSecret: `"$secret"`}
	v.Rows = rows(p)
	v.Token = p.Algorithm == signature.Token
	v.sayKeys()
	if err := v.readPayload(); err != nil {
		return view{}, err
	}
	return v, nil
}

func rows(p signature.Preset) []row {
	if p.Algorithm == signature.AlgorithmNone {
		return []row{{"signature", "none is checked"}, {"deduplication key", key(p)}, {"event type", eventType(p)}, {"answer", acknowledgement(p.Acknowledgement)}}
	}
	content := code(p.Content)
	if p.Content == "" {
		content = "none"
	}
	return []row{
		{"signature", place(p) + ": " + proof(p)},
		{"signed content", content},
		{"signed time", signedTime(p)},
		{"secret", secret(p)},
		{"deduplication key", key(p)},
		{"event type", eventType(p)},
		{"handshake", handshake(p.Handshake)},
		{"answer", acknowledgement(p.Acknowledgement)},
	}
}

// sayKeys says how the page makes and finds secrets.
func (v *view) sayKeys() {
	const random = `"$(openssl rand -hex 32)"`
	v.Unknown, v.Shown, v.Generated = random, `'put the secret here'`, `whsec_[^"]*`
	switch v.KeyForm {
	case signature.KeyRaw:
	case signature.KeyHex:
		v.Shown = random + "   # put the key here"
	case signature.KeyStandardWebhooks:
		v.Unknown = `"whsec_$(openssl rand -base64 32)"`
		v.Shown = v.Unknown + "   # put the secret here"
	case signature.KeyEd25519:
		v.Secrets, v.SendSecret = `"$public"`, `"$seed$public"`
	case signature.KeyECDSA:
		v.Secrets, v.SendSecret = `"$public"`, `"$private"`
	case signature.KeyBasicAuth:
		v.Generated = `kapsel:whsec_[^"]*`
	case signature.KeyVerifyToken:
		v.Secrets = `"$secret,verify_token:$token"`
	}
}

// readPayload reads of the payload what the verifier would.
func (v *view) readPayload() error {
	header := http.Header{}
	flags := ""
	if v.EventType.Header != "" {
		if v.Text.Event == "" {
			return fmt.Errorf("text/%s.md names no event for header %s", v.Name, v.EventType.Header)
		}
		header.Set(v.EventType.Header, v.Text.Event)
		flags += " --event " + quote(v.Text.Event)
	}
	if v.DeliveryID.Header != "" {
		if v.Text.ID == "" {
			return fmt.Errorf("text/%s.md names no id for header %s", v.Name, v.DeliveryID.Header)
		}
		header.Set(v.DeliveryID.Header, v.Text.ID)
		flags += " --id " + v.Text.ID
	}
	if v.Text.File == "webhook.txt" {
		flags += " --content-type application/x-www-form-urlencoded"
	}
	v.Send = strings.TrimSpace(flags)
	body := []byte(v.Text.Payload)
	var found bool
	if v.Type, found = v.EventType.Find(header, body); !found && eventType(v.Preset) != "none" {
		return fmt.Errorf("its payload has no event type, which %s should be", eventType(v.Preset))
	}
	if v.Key, found = v.DeliveryID.Find(header, body); !found && field(v.DeliveryID) != "" && !v.RepeatsBody {
		return fmt.Errorf("its payload has no delivery id, which %s should be", field(v.DeliveryID))
	}
	v.Repeats = found || v.RepeatsBody
	return nil
}

// quote writes a word for the shell.
func quote(word string) string {
	if strings.ContainsAny(word, " *?$'\"") {
		return "'" + word + "'"
	}
	return word
}
