package signature

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// Signer signs the webhooks of one destination by Standard Webhooks 1.0.0. It is made once per
// set of secrets and is safe for concurrent use.
type Signer struct {
	keys    []signingKey
	content template
	scratch sync.Pool // of *[]byte
}

// signingKey has exactly one field set.
type signingKey struct {
	mac     *macKey
	private ed25519.PrivateKey
}

// NewSigner takes the secrets that receivers may hold now, 1 to 8, the newest first by custom:
// whsec_ for HMAC-SHA256 (v1) and whsk_ for Ed25519 (v1a). Each adds a signature to the list.
func NewSigner(secrets [][]byte) (*Signer, error) {
	if len(secrets) == 0 || len(secrets) > maxSecrets {
		return nil, fmt.Errorf("signing needs 1 to %d secrets, got %d", maxSecrets, len(secrets))
	}
	content, err := compileTemplate("{id}.{timestamp}.{body}")
	if err != nil {
		return nil, err
	}
	s := &Signer{content: content}
	s.scratch.New = func() any { return new([]byte) }
	var errs []error
	for i, secret := range secrets {
		k, err := parseKey(KeyStandardWebhooks, secret)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("secret %d %w", i+1, err))
		case k.public != nil:
			errs = append(errs, fmt.Errorf("secret %d is a public key: signing needs the private one", i+1))
		case k.private != nil:
			s.keys = append(s.keys, signingKey{private: k.private})
		default:
			s.keys = append(s.keys, signingKey{mac: newMACKey(HMACSHA256, k.mac)})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// Sign returns the value of the webhook-signature header. id is sent as webhook-id and must
// contain no full stop; ts is sent as webhook-timestamp in whole Unix seconds.
func (s *Signer) Sign(id string, ts time.Time, body []byte) string {
	m := message{id: id, timestamp: strconv.FormatInt(ts.Unix(), 10), body: body}
	buf := s.scratch.Get().(*[]byte)
	out := (*buf)[:0]
	for i, k := range s.keys {
		if i > 0 {
			out = append(out, ' ')
		}
		if k.private != nil {
			out = append(out, prefixEd25519Item...)
			out = Base64.appendEncode(out, ed25519.Sign(k.private, s.content.appendTo(nil, &m)))
			continue
		}
		state := k.mac.compute(s.content, &m)
		out = append(out, prefixHMACItem...)
		out = Base64.appendEncode(out, state.sum)
		k.mac.release(state)
	}
	text := string(out)
	*buf = out
	s.scratch.Put(buf)
	return text
}
