package signature

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Anyone may ask for the HMAC of a crc_token, by a key that webhooks are signed with.
func TestNoChallengeIsAnsweredWithTheSignatureOfAWebhook(t *testing.T) {
	v, err := NewVerifier(Config{Preset: "x"}, [][]byte{[]byte("consumer secret")})
	if err != nil {
		t.Fatal(err)
	}
	for token, answered := range map[string]bool{
		"9b4507b3-9040-4669-9ca3-6b94edb50553":     true,
		"MDk2MmM3MTAtZWU2Yi00+/w==":                true,
		"challenge_string.~":                       true,
		"1":                                        true,
		strings.Repeat("a", maxChallengeBytes):     true,
		strings.Repeat("a", maxChallengeBytes+1):   false,
		`{"for_user_id":"1","favorite_events":[]}`: false,
		`[]`:             false,
		`"a"`:            false,
		"a b":            false,
		" 1":             false,
		"caf\u00e9":      false,
		"a\n":            false,
		"{%22a%22:1}":    false,
		"nonce=1&more=2": false,
	} {
		answer, is, err := v.AnswerGET("nonce=1&crc_token=" + url.QueryEscape(token))
		if !is || (err == nil) != answered {
			t.Errorf("%.50q: answered %q, %v", token, answer.Body, err)
		}
		var given struct {
			Token string `json:"response_token"`
		}
		if err != nil || json.Unmarshal(answer.Body, &given) != nil || given.Token == "" {
			continue
		}
		forged := Request{Header: http.Header{"X-Twitter-Webhooks-Signature": {given.Token}}, Body: []byte(token)}
		if err := v.Verify(forged, specTime); err == nil {
			t.Errorf("%.50q: the answer is the signature of a webhook", token)
		}
	}
}
