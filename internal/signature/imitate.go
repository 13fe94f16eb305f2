package signature

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kapsel-dev/kapsel/internal/jsonpath"
)

// SignRequest returns r as the source of cfg would send it: with the signature and, where the
// preset has them, the timestamp (now) and the delivery id in its headers, or in the place that
// the body has for them, or in the query. r.Method and r.URL are needed where the signature covers
// them. An empty id is left out, or an error where the signature covers it; an id that stands in
// the body is the caller's to put there. Presets with public keys take the sender's private one.
func SignRequest(cfg Config, secret []byte, r Request, now time.Time, id string) (Request, error) {
	p, err := cfg.preset()
	if err != nil {
		return Request{}, fmt.Errorf("signature configuration: %w", err)
	}
	return signRequest(p, secret, r, now, id)
}

func signRequest(p Preset, secret []byte, r Request, now time.Time, id string) (Request, error) {
	s, err := compile(p)
	if err != nil {
		return Request{}, fmt.Errorf("signature configuration: %w", err)
	}
	if r.Header = r.Header.Clone(); r.Header == nil {
		r.Header = make(http.Header)
	}
	if id != "" && p.DeliveryID.Header != "" {
		if !storable(id) {
			return Request{}, fmt.Errorf("delivery id must be at most %d bytes of plain text", maxFieldBytes)
		}
		r.Header.Set(p.DeliveryID.Header, id)
	}
	if p.Algorithm == AlgorithmNone {
		return r, nil
	}
	if s.content.has(idPart) && (id == "" || strings.Contains(id, ".")) {
		return Request{}, fmt.Errorf("preset %s signs the delivery id: give one without a full stop", p.Name)
	}
	k, err := parseKey(p.KeyForm, secret)
	switch {
	case err != nil:
		return Request{}, fmt.Errorf("secret %w", err)
	case k.public != nil || k.ecdsaPublic != nil:
		return Request{}, errors.New("secret is a public key: signing needs the private one")
	case k.verifyToken != nil:
		return Request{}, errors.New("secret is a verify token: signing needs the app secret")
	}
	m := message{id: id, timestamp: s.timestampText(now), method: r.Method}
	if s.timestampPath != nil {
		if r.Body, err = replaceJSON(r.Body, s.timestampPath, []byte(m.timestamp)); err != nil {
			return Request{}, err
		}
	}
	if p.BodyDigestQuery != "" && !isForm(r) {
		sum := sha256.Sum256(r.Body)
		r.URL = addQuery(r.URL, p.BodyDigestQuery+"="+hex.EncodeToString(sum[:]))
	}
	if s.content.has(urlPart) && r.URL == "" {
		return Request{}, fmt.Errorf("preset %s signs the URL: give it", p.Name)
	}
	var read parsed
	read.message = m
	if err := s.readContent(&r, &read); err != nil {
		return Request{}, err
	}
	return s.attach(r, s.makeItem(k, &read.message), m.timestamp)
}

// makeItem makes a signature with its prefix.
func (s *scheme) makeItem(k key, m *message) string {
	p := s.preset
	item := []byte(p.Prefix)
	switch {
	case p.Algorithm == Token && k.token != nil:
		item = append(item, k.token...)
	case p.Algorithm == Token:
		item = append(item, k.mac...)
	case k.private != nil && p.KeyForm == KeyStandardWebhooks:
		item = Base64.appendEncode([]byte(prefixEd25519Item), ed25519.Sign(k.private, s.content.appendTo(nil, m)))
	case k.private != nil:
		item = p.Encoding.appendEncode(item, ed25519.Sign(k.private, s.content.appendTo(nil, m)))
	case k.ecdsaPrivate != nil:
		digest := sha256.Sum256(s.content.appendTo(nil, m))
		der, err := ecdsa.SignASN1(rand.Reader, k.ecdsaPrivate, digest[:])
		if err != nil {
			panic(fmt.Sprintf("signature: sign with a parsed P-256 key: %v", err)) // crypto/rand does not fail
		}
		item = p.Encoding.appendEncode(item, der)
	default:
		item = p.Encoding.appendEncode(item, newMACKey(p.Algorithm, k.mac).compute(s.content, m).sum)
	}
	return string(item)
}

// attach puts a signature and its timestamp where the preset has them.
func (s *scheme) attach(r Request, item, timestamp string) (Request, error) {
	p := s.preset
	if p.TimestampHeader != "" {
		r.Header.Set(p.TimestampHeader, timestamp)
	}
	if p.TimestampPrefix != "" {
		item = p.TimestampPrefix + timestamp + p.Separator + item
	}
	if s.signaturePath == nil {
		r.Header.Set(p.Header, item)
		return r, nil
	}
	text, err := json.Marshal(item)
	if err != nil {
		return Request{}, fmt.Errorf("signature: %w", err)
	}
	r.Body, err = replaceJSON(r.Body, s.signaturePath, text)
	return r, err
}

func (s *scheme) timestampText(now time.Time) string {
	if s.preset.TimestampUnit == time.Millisecond {
		return strconv.FormatInt(now.UnixMilli(), 10)
	}
	return strconv.FormatInt(now.Unix(), 10)
}

// replaceJSON puts a value in the place of the one at the path.
func replaceJSON(body []byte, path jsonpath.Path, value []byte) ([]byte, error) {
	from, to, ok := path.Span(body)
	if !ok {
		return nil, fmt.Errorf("the body has no %s, where the provider puts a value: add it, empty", path)
	}
	return bytes.Join([][]byte{body[:from], body[to:]}, value), nil
}

func isForm(r Request) bool {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "application/x-www-form-urlencoded")
}

func addQuery(address, pair string) string {
	if strings.Contains(address, "?") {
		return address + "&" + pair
	}
	return address + "?" + pair
}
