package signature

import (
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Verifier checks the requests of one endpoint. It is made once per configuration, holds the
// keys, and is safe for concurrent use.
type Verifier struct {
	scheme  *scheme
	macs    []*macKey
	publics []ed25519.PublicKey
	scratch sync.Pool // of *[]byte: whole signed contents, for Ed25519
}

// NewVerifier compiles cfg with the secrets that are valid now, 1 to 8 of them: several during
// a rotation. PresetNone takes none. Errors say what to change and never quote a secret.
func NewVerifier(cfg Config, secrets [][]byte) (*Verifier, error) {
	p, err := cfg.preset()
	if err != nil {
		return nil, fmt.Errorf("signature configuration: %w", err)
	}
	return newVerifier(p, secrets)
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
		k, err := parseKey(p.KeyForm, secret)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("secret %d %w", i+1, err))
		case k.private != nil:
			errs = append(errs, fmt.Errorf("secret %d is the sender's private key (%s): give its public key (%s)", i+1, prefixPrivateKey, prefixPublicKey))
		case k.public != nil:
			v.publics = append(v.publics, k.public)
		default:
			v.macs = append(v.macs, newMACKey(p.Algorithm, k.mac))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return v, nil
}

// Verify returns nil if the request was signed with one of the secrets, and within the
// tolerance of now. Otherwise the error wraps one of the package's Err values. Headers are read
// by their canonical names, as net/http stores them; body must be the exact bytes received.
func (v *Verifier) Verify(h http.Header, body []byte, now time.Time) error {
	s := v.scheme
	if s.preset.Algorithm == AlgorithmNone {
		return nil
	}
	var p parsed
	if err := s.parse(h, &p, len(v.macs) > 0, len(v.publics) > 0); err != nil {
		return err
	}
	if s.content.has(timestampPart) {
		if err := s.checkTime(p.timestamp, now); err != nil {
			return err
		}
	}
	if v.matchMAC(&p, body) || v.matchEd25519(&p, body) {
		return nil
	}
	return ErrBadSignature
}

// matchMAC compares every signature with every key's MAC, whatever matches before.
func (v *Verifier) matchMAC(p *parsed, body []byte) bool {
	if p.nMACs == 0 {
		return false
	}
	match := 0
	for _, k := range v.macs {
		state := k.compute(v.scheme.content, p.id, p.timestamp, body)
		for i := range p.nMACs {
			match |= subtle.ConstantTimeCompare(state.sum, p.macs[i][:len(state.sum)])
		}
		k.release(state)
	}
	return match == 1
}

// matchEd25519 may stop early: public keys and signatures are no secrets.
func (v *Verifier) matchEd25519(p *parsed, body []byte) bool {
	if p.nEd25519 == 0 {
		return false
	}
	buf := v.scratch.Get().(*[]byte)
	content := v.scheme.content.appendTo((*buf)[:0], p.id, p.timestamp, body)
	defer func() {
		if cap(content) <= maxScratchBytes {
			*buf = content
			v.scratch.Put(buf)
		}
	}()
	for _, public := range v.publics {
		for i := range p.nEd25519 {
			if ed25519.Verify(public, content, p.ed25519[i][:]) {
				return true
			}
		}
	}
	return false
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
