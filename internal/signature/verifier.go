package signature

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Request is what a source sent, as far as signatures cover it.
type Request struct {
	// Method of the request. Empty if the preset's signature does not cover it.
	Method string
	// URL is the address that the source was given, with the request's query. Empty if the
	// preset's signature does not cover it (Verifier.SignsURL).
	URL string
	// Header by canonical names, as net/http stores them.
	Header http.Header
	// Body is the exact bytes received.
	Body []byte
}

// Verifier checks the requests of one endpoint. It is made once per configuration, holds the
// keys, and is safe for concurrent use.
type Verifier struct {
	scheme       *scheme
	macs         []*macKey
	ed25519s     []ed25519.PublicKey
	ecdsas       []*ecdsa.PublicKey
	tokens       []tokenDigest
	verifyTokens []tokenDigest
	signedURL    signedURL
	scratch      sync.Pool // of *[]byte: whole signed contents, for public keys
}

// NewVerifier compiles cfg with the secrets that are valid now, 1 to 8 of them, the newest first:
// several during a rotation. PresetNone takes none. Errors say what to change and never quote a secret.
func NewVerifier(cfg Config, secrets [][]byte) (*Verifier, error) {
	p, err := cfg.preset()
	if err != nil {
		return nil, fmt.Errorf("signature configuration: %w", err)
	}
	v, err := newVerifier(p, secrets)
	if err != nil {
		return nil, err
	}
	v.signedURL = parseSignedURL(cfg.SignedURL)
	return v, nil
}

// Acknowledgement is the status that tells the source that its webhook was taken in.
func (v *Verifier) Acknowledgement() int {
	return cmp.Or(v.scheme.preset.Acknowledgement, http.StatusAccepted)
}

func newVerifier(p Preset, secrets [][]byte) (*Verifier, error) {
	s, err := compile(p)
	if err != nil {
		return nil, fmt.Errorf("signature configuration: %w", err)
	}
	v := &Verifier{scheme: s}
	v.scratch.New = func() any { return new([]byte) }
	switch {
	case p.Algorithm == AlgorithmNone && len(secrets) > 0:
		return nil, fmt.Errorf("preset %s verifies nothing and takes no secret: remove the secrets, or choose another preset", p.Name)
	case p.Algorithm != AlgorithmNone && len(secrets) == 0:
		return nil, fmt.Errorf("preset %s needs at least one secret", p.Name)
	case len(secrets) > maxSecrets:
		return nil, fmt.Errorf("%d secrets at once: remove old ones until at most %d are left", len(secrets), maxSecrets)
	}
	var errs []error
	for i, secret := range secrets {
		if err := v.add(secret); err != nil {
			errs = append(errs, fmt.Errorf("secret %d %w", i+1, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if p.Algorithm != AlgorithmNone && !v.has(p.Algorithm) && len(v.ed25519s) == 0 {
		return nil, fmt.Errorf("preset %s needs a secret that it signs with, beside the one that begins with %s", p.Name, prefixVerifyToken)
	}
	return v, nil
}

// add takes a secret. Its errors read on from "secret N".
func (v *Verifier) add(secret []byte) error {
	p := v.scheme.preset
	k, err := parseKey(p.KeyForm, secret)
	switch {
	case err != nil:
		return err
	case k.isPrivate():
		return fmt.Errorf("is the sender's private key%s: give its public key%s", inBrackets(p, PrefixPrivateKey), inBrackets(p, PrefixPublicKey))
	case k.public != nil:
		v.ed25519s = append(v.ed25519s, k.public)
	case k.ecdsaPublic != nil:
		v.ecdsas = append(v.ecdsas, k.ecdsaPublic)
	case k.verifyToken != nil:
		v.verifyTokens = append(v.verifyTokens, digestToken(k.verifyToken))
	case p.Algorithm == Token && k.token == nil:
		v.tokens = append(v.tokens, digestToken(k.mac))
	case k.token != nil:
		v.tokens = append(v.tokens, digestToken(k.token))
	default:
		v.macs = append(v.macs, newMACKey(p.Algorithm, k.mac))
	}
	return nil
}

func inBrackets(p Preset, prefix string) string {
	if p.KeyForm != KeyStandardWebhooks {
		return ""
	}
	return " (" + prefix + ")"
}

// has reports whether there is a key for an algorithm.
func (v *Verifier) has(a Algorithm) bool {
	switch a {
	case HMACSHA1, HMACSHA256, HMACSHA512:
		return len(v.macs) > 0
	case Ed25519:
		return len(v.ed25519s) > 0
	case ECDSAP256:
		return len(v.ecdsas) > 0
	case Token:
		return len(v.tokens) > 0
	case AlgorithmNone:
	}
	return false
}

// SignsURL reports whether signatures cover the URL, so that Verify needs it.
func (v *Verifier) SignsURL() bool { return v.scheme.content.has(urlPart) }

// RepeatsBody reports whether a delivery without id is known by its body.
func (v *Verifier) RepeatsBody() bool { return v.scheme.preset.RepeatsBody }

// SignsDeliveryID reports whether the signature covers what a delivery is known by: its id, or the body.
func (v *Verifier) SignsDeliveryID() bool {
	p := v.scheme.preset
	if p.Algorithm == AlgorithmNone || p.Algorithm == Token {
		return false
	}
	return len(p.DeliveryID.JSON) > 0 || v.scheme.content.has(idPart) || p.DeliveryID.Header == "" && p.RepeatsBody
}

// Verify returns nil if the request was signed with one of the secrets, and within the
// tolerance of now. Otherwise the error wraps one of the package's Err values.
func (v *Verifier) Verify(r Request, now time.Time) error {
	_, err := v.verify(&r, now)
	return err
}

// verify returns which of the keys of its kind the request was signed with.
func (v *Verifier) verify(r *Request, now time.Time) (matched int, err error) {
	s := v.scheme
	if s.preset.Algorithm == AlgorithmNone {
		return 0, nil
	}
	var p parsed
	wantEd25519 := s.preset.KeyForm == KeyStandardWebhooks && len(v.ed25519s) > 0
	if err := s.parse(r, &p, v.has(s.preset.Algorithm), wantEd25519); err != nil {
		return 0, err
	}
	if s.timed {
		if err := s.checkTime(p.timestamp, now); err != nil {
			return 0, err
		}
	}
	if s.preset.Algorithm == Token {
		matched = v.matchToken(p.token)
	} else if matched = v.matchMAC(&p); matched < 0 {
		matched = v.matchPublicKey(&p)
	}
	if matched < 0 {
		return 0, ErrBadSignature
	}
	if s.preset.Handshake == XChallenge && isToken(r.Body) {
		return 0, errTokenBody
	}
	return matched, nil
}

// matchMAC compares every MAC with every key's, whatever matches before.
func (v *Verifier) matchMAC(p *parsed) int {
	match := -1
	for n, k := range v.macs {
		state := k.compute(v.scheme.content, &p.message)
		for i := range p.n {
			if p.items[i].algorithm == v.scheme.preset.Algorithm {
				match = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(state.sum, p.items[i].bytes()), n, match)
			}
		}
		k.release(state)
	}
	return match
}

func (v *Verifier) matchToken(token string) int {
	digest := digestToken([]byte(token))
	match := -1
	for n := range v.tokens {
		match = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(digest[:], v.tokens[n][:]), n, match)
	}
	return match
}

// matchPublicKey may stop early: public keys and signatures are no secrets.
func (v *Verifier) matchPublicKey(p *parsed) int {
	if len(v.ed25519s)+len(v.ecdsas) == 0 {
		return -1
	}
	buf := v.scratch.Get().(*[]byte)
	content := v.scheme.content.appendTo((*buf)[:0], &p.message)
	defer func() {
		if cap(content) <= maxScratchBytes {
			*buf = content
			v.scratch.Put(buf)
		}
	}()
	for i := range p.n {
		switch p.items[i].algorithm {
		case Ed25519:
			for n, public := range v.ed25519s {
				if ed25519.Verify(public, content, p.items[i].bytes()) {
					return n
				}
			}
		case ECDSAP256:
			digest, der := sha256.Sum256(content), bytes.Clone(p.items[i].bytes()) // a clone, so that p stays on the stack
			for n, public := range v.ecdsas {
				if ecdsa.VerifyASN1(public, digest[:], der) {
					return n
				}
			}
		case AlgorithmNone, HMACSHA1, HMACSHA256, HMACSHA512, Token:
		}
	}
	return -1
}

// DeliveryID returns the provider's id of the delivery, which is the same when the provider
// sends it again. It reports false if the preset has none, or if the request's is absent, over
// 512 bytes, or not plain UTF-8 text. Call it after Verify.
func (v *Verifier) DeliveryID(h http.Header, body []byte) (string, bool) {
	return v.scheme.deliveryID.find(h, body)
}

// EventType returns the kind of event, under the same conditions as DeliveryID.
func (v *Verifier) EventType(h http.Header, body []byte) (string, bool) {
	return v.scheme.eventType.find(h, body)
}
