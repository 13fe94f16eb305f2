package signature

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Sign returns the headers that the source of cfg would send with body: the signature and,
// where the preset has them, the timestamp (now) and the delivery id. An empty id is left out,
// or an error where the signature covers it; an id that stands in the body is the caller's to
// put there. Under KeyStandardWebhooks a whsk_ secret signs with Ed25519.
func Sign(cfg Config, secret, body []byte, now time.Time, id string) (http.Header, error) {
	p, err := cfg.preset()
	if err != nil {
		return nil, fmt.Errorf("signature configuration: %w", err)
	}
	return sign(p, secret, body, now, id)
}

func sign(p Preset, secret, body []byte, now time.Time, id string) (http.Header, error) {
	s, err := compile(p)
	if err != nil {
		return nil, fmt.Errorf("signature configuration: %w", err)
	}
	h := make(http.Header)
	if id != "" && p.DeliveryID.Header != "" {
		if !storable(id) {
			return nil, fmt.Errorf("delivery id must be at most %d bytes of plain text", maxFieldBytes)
		}
		h.Set(p.DeliveryID.Header, id)
	}
	if p.Algorithm == AlgorithmNone {
		return h, nil
	}
	if s.content.has(idPart) && (id == "" || strings.Contains(id, ".")) {
		return nil, fmt.Errorf("preset %s signs the delivery id: give one without a full stop", p.Name)
	}
	k, err := parseKey(p.KeyForm, secret)
	if err != nil {
		return nil, fmt.Errorf("secret %w", err)
	}
	timestamp := strconv.FormatInt(now.Unix(), 10)
	var item []byte
	switch {
	case k.public != nil:
		return nil, errors.New("secret is a public key: signing needs the private one")
	case k.private != nil:
		item = append(item, prefixEd25519Item...)
		item = Base64.appendEncode(item, ed25519.Sign(k.private, s.content.appendTo(nil, id, timestamp, body)))
	default:
		item = append(item, p.Prefix...)
		item = p.Encoding.appendEncode(item, newMACKey(p.Algorithm, k.mac).compute(s.content, id, timestamp, body).sum)
	}
	if p.TimestampHeader != "" {
		h.Set(p.TimestampHeader, timestamp)
	}
	value := string(item)
	if p.TimestampPrefix != "" {
		value = p.TimestampPrefix + timestamp + p.Separator + value
	}
	h.Set(p.Header, value)
	return h, nil
}
