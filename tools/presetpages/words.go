package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/kapsel-dev/kapsel/internal/signature"
)

// The words in this file say what the fields of a preset mean.

func code(text string) string { return "`" + text + "`" }

func algorithm(a signature.Algorithm) string {
	switch a {
	case signature.AlgorithmNone:
		return "nothing"
	case signature.HMACSHA1:
		return "HMAC-SHA1"
	case signature.HMACSHA256:
		return "HMAC-SHA256"
	case signature.HMACSHA512:
		return "HMAC-SHA512"
	case signature.Ed25519:
		return "Ed25519 (RFC 8032)"
	case signature.ECDSAP256:
		return "ECDSA on P-256 with SHA-256, in DER,"
	case signature.Token:
		return "the secret itself"
	}
	panic(fmt.Sprintf("algorithm %d is unknown", a))
}

func encoding(e signature.Encoding) string {
	switch e {
	case signature.Hex:
		return "in hex"
	case signature.Base64:
		return "in base64"
	case signature.Plain:
		return "as it is"
	}
	panic(fmt.Sprintf("encoding %d is unknown", e))
}

// place is where the signature stands.
func place(p signature.Preset) string {
	if p.SignatureJSON != "" {
		return "member " + code(p.SignatureJSON) + " of the payload"
	}
	return "header " + code(p.Header)
}

// proof is how the signature is written at its place.
func proof(p signature.Preset) string {
	what := algorithm(p.Algorithm) + " " + encoding(p.Encoding)
	switch {
	case p.KeyForm == signature.KeyBasicAuth:
		return code(p.Prefix) + "and the base64 of user and password (RFC 7617)"
	case p.Algorithm == signature.Token:
		return algorithm(p.Algorithm)
	case p.Separator != "":
		separator := code(p.Separator)
		if p.Separator == " " {
			separator = "spaces"
		}
		list := fmt.Sprintf("items split by %s; each that begins with %s is %s, one that is right is enough, and others are passed over", separator, code(p.Prefix), what)
		if p.KeyForm == signature.KeyStandardWebhooks {
			list += "; " + code("v1a,") + " begins an Ed25519 signature in base64"
		}
		return list
	case p.Prefix != "":
		return code(p.Prefix) + ", then " + what
	}
	return what
}

// placeholders are the parts of a signed content, in words.
var placeholders = []struct{ name, meaning string }{
	{"{id}", "the delivery's id"},
	{"{timestamp}", "the time as it was sent"},
	{"{method}", "the request's method"},
	{"{url}", "the URL that the provider was given, with the request's query"},
	{"{body}", "the payload, byte for byte"},
	{"{form}", "the payload's form parameters, sorted by name, each name and value without anything between"},
	{"{json:", "the text at a path of the payload, nothing where there is none"},
}

func legend(content string) string {
	var parts []string
	for _, p := range placeholders {
		if strings.Contains(content, p.name) {
			name := p.name
			if name == "{json:" {
				name = "{json:…}"
			}
			parts = append(parts, code(name)+" is "+p.meaning)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return strings.Join(parts, "; ") + "."
}

func signedTime(p signature.Preset) string {
	if !p.Timed() {
		return "none"
	}
	unit := "Unix seconds"
	if p.TimestampUnit == time.Millisecond {
		unit = "Unix milliseconds"
	}
	where := "header " + code(p.TimestampHeader)
	if p.TimestampPrefix != "" {
		where = "the item after " + code(p.TimestampPrefix)
	} else if p.TimestampJSON != "" {
		where = "member " + code(p.TimestampJSON) + " of the payload"
	}
	return fmt.Sprintf("%s, %s; at most %s from now, both ways, or what `--verification-tolerance` says", where, unit, duration(p.Tolerance))
}

func duration(d time.Duration) string {
	switch {
	case d == time.Minute:
		return "1 minute"
	case d < time.Hour:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return fmt.Sprintf("%d hours", d/time.Hour)
}

func secret(p signature.Preset) string {
	chooser := "the provider's, given with `--secrets`; "
	if p.ReceiverChooses {
		chooser = "yours, generated where `--secrets` gives none; "
	}
	switch p.KeyForm {
	case signature.KeyRaw:
		return chooser + "any text, all of it is the key"
	case signature.KeyStandardWebhooks:
		return chooser + "base64 after `whsec_`; or the sender's Ed25519 public key, base64 after `whpk_`"
	case signature.KeyHex:
		return chooser + "a key in hex"
	case signature.KeyEd25519:
		return chooser + "an Ed25519 public key of 32 bytes in hex"
	case signature.KeyECDSA:
		return chooser + "an ECDSA P-256 public key in PEM, or the base64 of its DER form"
	case signature.KeyBasicAuth:
		return chooser + "`user:password`"
	case signature.KeyVerifyToken:
		return chooser + "any text, all of it is the key; and your own token for the handshake, after `verify_token:`"
	}
	panic(fmt.Sprintf("key form %d is unknown", p.KeyForm))
}

// field is where something stands in a request, "" for nowhere.
func field(f signature.Field) string {
	if f.Header != "" {
		return "header " + code(f.Header)
	}
	paths := make([]string, len(f.JSON))
	for i, path := range f.JSON {
		paths[i] = code(path)
	}
	switch len(paths) {
	case 0:
		return ""
	case 1:
		return "member " + paths[0] + " of the payload"
	}
	return "members " + strings.Join(paths, ", ") + " of the payload"
}

func key(p signature.Preset) string {
	const body = "the SHA-256 of the payload"
	switch id := field(p.DeliveryID); {
	case id == "" && p.RepeatsBody:
		return body
	case id == "":
		return "none"
	case p.RepeatsBody:
		return id + "; where there is none, " + body
	default:
		return id
	}
}

func eventType(p signature.Preset) string {
	if where := field(p.EventType); where != "" {
		return where
	}
	return "none"
}

func handshake(h signature.Handshake) string {
	switch h {
	case signature.HandshakeNone:
		return "none"
	case signature.SlackURLVerification:
		return "a signed POST of type `url_verification`: its `challenge` is sent back"
	case signature.ZoomURLValidation:
		return "a signed POST of event `endpoint.url_validation`: its `plainToken` is sent back with its HMAC"
	case signature.DiscordPing:
		return "a signed PING: 204 to one of webhook events, `{\"type\":1}` to one of interactions"
	case signature.MetaChallenge:
		return "a GET with `hub.verify_token`, which must be a secret after `verify_token:`; `hub.challenge` is sent back"
	case signature.GraphValidation:
		return "a POST with `validationToken` in its query, which is sent back as plain text"
	case signature.XChallenge:
		return "a GET with `crc_token`, whose HMAC with the newest secret is sent back"
	case signature.WooCommercePing:
		return "a form of `webhook_id` alone: 200"
	case signature.IntercomHead:
		return "a HEAD: 200"
	}
	panic(fmt.Sprintf("handshake %d is unknown", h))
}

func acknowledgement(status int) string {
	switch status {
	case 0:
		return "202 with a receipt"
	case http.StatusNoContent:
		return "204 without a body, as the provider asks"
	}
	return fmt.Sprintf("%d with a receipt, as the provider asks", status)
}

// knownLimits are what follows from how a provider signs.
func knownLimits(p signature.Preset) (limits []string) {
	add := func(applies bool, limit string) {
		if applies {
			limits = append(limits, limit)
		}
	}
	signs := p.Algorithm != signature.AlgorithmNone && p.Algorithm != signature.Token
	add(p.Algorithm == signature.AlgorithmNone, "Whoever knows the address can post to it.")
	add(p.Algorithm == signature.Token, "A token is not a signature: the secret itself is sent. It says who sent the webhook, and not that nothing was changed on the way.")
	add(signs && !p.Timed(), "No time is signed. Whoever caught a webhook can send it again for as long as the secret is in force.")
	add(p.DeliveryID.Header != "" && !strings.Contains(p.Content, "{id}"),
		"The id is not signed: a webhook that was caught can be sent again under another one, and is a new event then.")
	add(signs && p.SignatureJSON != "", "Only the members in the signed content are signed. One of them that stands in the payload twice is refused, since two readers could take different ones.")
	add(p.OnlyItemJSON != "", "A payload with "+code(p.OnlyItemJSON)+" is refused: the signature does not cover it.")
	add(strings.Contains(p.Content, "{url}"), "The URL is signed. If the provider was given another address than the endpoint's, one of a proxy or a domain of yours, `--verification-signed-url` must be exactly that.")
	add(p.DecodedURL != "", "In the URL that is signed, percent-encoded "+code(p.DecodedURL)+" stand decoded.")
	add(p.BodyDigestQuery != "", "A payload that is no form is covered by its SHA-256, in "+code(p.BodyDigestQuery)+" of the query.")
	add(p.RepeatsBody && field(p.DeliveryID) == "", "There is no id: two webhooks with the same bytes within the deduplication window are one event.")
	add(key(p) == "none", "Nothing tells a repeat: every webhook is an event, unless `--deduplication-source` says where a key stands.")
	add(signs && (p.Algorithm == signature.Ed25519 || p.Algorithm == signature.ECDSAP256), "Kapsel holds a public key only: nobody can sign with what it knows.")
	return limits
}
