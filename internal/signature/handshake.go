package signature

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kapsel-dev/kapsel/internal/jsonpath"
)

// Handshake is how a provider makes sure of an endpoint before it sends events there. It belongs to the preset, and is
// answered without an event.
type Handshake uint8

// The handshakes.
const (
	HandshakeNone Handshake = iota
	// SlackURLVerification: a signed POST of type url_verification; its challenge is sent back.
	SlackURLVerification
	// ZoomURLValidation: a signed POST of event endpoint.url_validation; its plainToken is sent back with its HMAC.
	ZoomURLValidation
	// DiscordPing: a signed POST. An interaction of type 1 is answered with type 1, a webhook event of type 0 with
	// nothing.
	DiscordPing
	// MetaChallenge: a GET with hub.mode=subscribe and a hub.verify_token that the endpoint knows; hub.challenge is sent
	// back.
	MetaChallenge
	// GraphValidation: an unsigned POST with validationToken in its query, which is sent back as plain text.
	GraphValidation
	// XChallenge: a GET with crc_token in its query; its HMAC with the first secret is sent back, to anyone who asks. Webhooks are
	// signed with the same key, so nothing can be both: see isToken.
	XChallenge
	// WooCommercePing: an unsigned form of webhook_id alone, which only wants a 200.
	WooCommercePing
	// IntercomHead: a HEAD, which only wants a 200.
	IntercomHead
)

// Answer is the response to a handshake.
type Answer struct {
	Status      int
	ContentType string
	Body        []byte
}

const (
	textPlain       = "text/plain; charset=utf-8"
	applicationJSON = "application/json"
)

var (
	typePath           = jsonpath.Parse("type")
	eventPath          = jsonpath.Parse("event")
	challengePath      = jsonpath.Parse("challenge")
	plainTokenPath     = jsonpath.Parse("payload.plainToken")
	bodyOnly           = template{{kind: bodyPart}}
	errChallenge       = fmt.Errorf("%w: the handshake's challenge is missing, or over %d bytes, or not plain text", ErrMalformedSignature, maxChallengeBytes)
	errNoVerifyToken   = fmt.Errorf("%w: hub.verify_token is not one of the endpoint's secrets that begin with %s", ErrBadSignature, prefixVerifyToken)
	errToken           = fmt.Errorf("%w: crc_token is missing, over %d bytes, or not of letters, digits and -._~+/= alone", ErrMalformedSignature, maxChallengeBytes)
	errTokenBody       = fmt.Errorf("%w: the body is a text that anyone is given the signature of, as a crc_token", ErrBadSignature)
	maxWooCommercePing = len("webhook_id=") + 20
)

// Handshakes reports whether the preset has a handshake. If not, there is nothing to answer.
func (v *Verifier) Handshakes() bool { return v.scheme.preset.Handshake != HandshakeNone }

// AnswersGET reports whether the handshake is a GET.
func (v *Verifier) AnswersGET() bool {
	h := v.scheme.preset.Handshake
	return h == MetaChallenge || h == XChallenge
}

// AnswersHEAD reports whether the handshake is a HEAD, whose answer is a 200 without anything.
func (v *Verifier) AnswersHEAD() bool { return v.scheme.preset.Handshake == IntercomHead }

// AnswerGET answers a handshake by GET. It reports false if the query holds none.
func (v *Verifier) AnswerGET(query string) (answer Answer, is bool, err error) {
	if !v.AnswersGET() || query == "" {
		return Answer{}, false, nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return Answer{}, false, nil
	}
	if v.scheme.preset.Handshake == XChallenge {
		token := values.Get("crc_token")
		if token == "" {
			return Answer{}, false, nil
		}
		if !isToken(token) {
			return Answer{}, true, errToken
		}
		mac := v.macOf(0, token)
		return jsonAnswer("response_token", "sha256="+base64.StdEncoding.EncodeToString(mac)), true, nil
	}
	if values.Get("hub.mode") != "subscribe" {
		return Answer{}, false, nil
	}
	digest := digestToken([]byte(values.Get("hub.verify_token")))
	match := 0
	for n := range v.verifyTokens {
		match |= subtle.ConstantTimeCompare(digest[:], v.verifyTokens[n][:])
	}
	if match == 0 {
		return Answer{}, true, errNoVerifyToken
	}
	return textAnswer(values.Get("hub.challenge"))
}

// AnswerPOST answers a handshake by POST. It reports false if the request is none. A handshake that a provider signs is
// verified first, with the errors of Verify.
func (v *Verifier) AnswerPOST(r Request, query string, now time.Time) (answer Answer, is bool, err error) {
	switch v.scheme.preset.Handshake {
	case GraphValidation:
		if !strings.Contains(query, "validationToken=") {
			return Answer{}, false, nil
		}
		values, err := url.ParseQuery(query)
		if err != nil || !values.Has("validationToken") {
			return Answer{}, false, nil
		}
		return textAnswer(values.Get("validationToken"))
	case WooCommercePing:
		id, ok := bytes.CutPrefix(r.Body, []byte("webhook_id="))
		if !ok || len(r.Body) > maxWooCommercePing || len(bytes.Trim(id, "0123456789")) > 0 {
			return Answer{}, false, nil
		}
		return Answer{Status: http.StatusOK}, true, nil
	case SlackURLVerification:
		if kind, _ := typePath.Text(r.Body); kind != "url_verification" {
			return Answer{}, false, nil
		}
		if err := v.Verify(r, now); err != nil {
			return Answer{}, true, err
		}
		challenge, _ := challengePath.Text(r.Body)
		return textAnswer(challenge)
	case ZoomURLValidation:
		if event, _ := eventPath.Text(r.Body); event != "endpoint.url_validation" {
			return Answer{}, false, nil
		}
		matched, err := v.verify(&r, now)
		if err != nil {
			return Answer{}, true, err
		}
		token, _ := plainTokenPath.Text(r.Body)
		if !challengeable(token) {
			return Answer{}, true, errChallenge
		}
		return jsonAnswer("plainToken", token, "encryptedToken", hex.EncodeToString(v.macOf(matched, token))), true, nil
	case DiscordPing:
		return v.answerDiscord(r, now)
	case HandshakeNone, MetaChallenge, XChallenge, IntercomHead:
	}
	return Answer{}, false, nil
}

// answerDiscord tells an interaction's ping, which is type 1, from a webhook event, which is type 1 too but holds one.
func (v *Verifier) answerDiscord(r Request, now time.Time) (answer Answer, is bool, err error) {
	kind, _ := typePath.Text(r.Body)
	_, _, hasEvent := eventPath.Span(r.Body)
	if kind != "0" && (kind != "1" || hasEvent) {
		return Answer{}, false, nil
	}
	if err := v.Verify(r, now); err != nil {
		return Answer{}, true, err
	}
	if kind == "0" {
		return Answer{Status: http.StatusNoContent}, true, nil
	}
	return Answer{Status: http.StatusOK, ContentType: applicationJSON, Body: []byte(`{"type":1}`)}, true, nil
}

// macOf is the MAC of a text with a key.
func (v *Verifier) macOf(key int, text string) []byte {
	k := v.macs[key]
	state := k.compute(bodyOnly, &message{body: []byte(text)})
	defer k.release(state)
	return bytes.Clone(state.sum)
}

// challengeable reports whether a text may be sent back: it is short, and without control characters.
func challengeable(text string) bool {
	return text != "" && len(text) <= maxChallengeBytes && utf8.ValidString(text) && strings.IndexFunc(text, unicode.IsControl) < 0
}

// isToken reports whether a text is a crc_token, and so no webhook: those are JSON objects. Its characters are those of a token68
// (RFC 9110 section 11.2).
func isToken[T string | []byte](text T) bool {
	if len(text) == 0 || len(text) > maxChallengeBytes {
		return false
	}
	for i := range len(text) {
		c := text[i]
		alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !alnum && strings.IndexByte("-._~+/=", c) < 0 {
			return false
		}
	}
	return true
}

func textAnswer(text string) (answer Answer, is bool, err error) {
	if !challengeable(text) {
		return Answer{}, true, errChallenge
	}
	return Answer{Status: http.StatusOK, ContentType: textPlain, Body: []byte(text)}, true, nil
}

// jsonAnswer is an object of names and values, in that order.
func jsonAnswer(pairs ...string) Answer {
	body := []byte{'{'}
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			body = append(body, ',')
		}
		name, _ := json.Marshal(pairs[i]) // strings can always be marshalled
		value, _ := json.Marshal(pairs[i+1])
		body = append(append(append(body, name...), ':'), value...)
	}
	return Answer{Status: http.StatusOK, ContentType: applicationJSON, Body: append(body, '}')}
}
