package kapsel

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Errors of verification. They are told apart with errors.Is.
var (
	// ErrHeader: webhook-id, webhook-timestamp or webhook-signature is missing or malformed.
	ErrHeader = errors.New("webhook header missing or malformed")
	// ErrTime: it was signed too long ago, or in the future.
	ErrTime = errors.New("webhook was signed too far from now")
	// ErrSignature: no signature is by any of the secrets.
	ErrSignature = errors.New("no signature of the webhook is by any of the secrets")
	// ErrTooLarge: the body is larger than the verifier reads.
	ErrTooLarge = errors.New("webhook body is too large")
)

const (
	defaultTolerance = 5 * time.Minute
	// defaultMaxBody is as much as Kapsel delivers.
	defaultMaxBody = 10 << 20
	maxSignatures  = 32
)

// Verifier verifies what Kapsel delivers, by Standard Webhooks 1.0.0. Make it with NewVerifier; then it is safe for concurrent use, and its
// fields must not change any more.
type Verifier struct {
	// Tolerance is how far webhook-timestamp may be from now. Default: 5 minutes.
	Tolerance time.Duration
	// MaxBodyBytes is the largest body that Handler reads. Default: 10 MiB.
	MaxBodyBytes int64
	// Now is the clock. Default: time.Now.
	Now func() time.Time

	macs    [][]byte
	publics []ed25519.PublicKey
}

// NewVerifier takes the secrets of a destination: whsec_… (v1, HMAC-SHA256) or whpk_… (v1a, Ed25519). During a rotation give the old
// and the new one.
func NewVerifier(secrets ...string) (*Verifier, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no secret to verify webhooks with")
	}
	v := &Verifier{Tolerance: defaultTolerance, MaxBodyBytes: defaultMaxBody, Now: time.Now}
	for i, secret := range secrets {
		encoded, public := strings.CutPrefix(secret, "whpk_")
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(encoded, "whsec_"))
		switch {
		case strings.HasPrefix(secret, "whsk_"):
			return nil, fmt.Errorf("secret %d is the sender's private key: verify with the public key, whpk_…", i+1)
		case err != nil || len(key) == 0 || public && len(key) != ed25519.PublicKeySize:
			return nil, fmt.Errorf("secret %d is malformed: want whsec_ and base64, or whpk_ and the base64 of 32 bytes", i+1)
		case public:
			v.publics = append(v.publics, key)
		default:
			v.macs = append(v.macs, key)
		}
	}
	return v, nil
}

// Webhook is one that was verified.
type Webhook struct {
	// ID is webhook-id, the event's id (evt_…). The same for every attempt: remember it, and each event is dealt with once.
	ID string
	// Timestamp is when this attempt was signed.
	Timestamp time.Time
	// Body is the exact bytes.
	Body []byte
}

// Verify checks a webhook's signatures over its exact body, in constant time, and how old it is.
func (v *Verifier) Verify(header http.Header, body []byte) (*Webhook, error) {
	id, stamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if id == "" || err != nil || seconds < 0 || seconds > 1<<40 {
		return nil, ErrHeader
	}
	at := time.Unix(seconds, 0)
	if age := v.Now().Sub(at); age > v.Tolerance || age < -v.Tolerance {
		return nil, fmt.Errorf("%w: by %v", ErrTime, age.Round(time.Second))
	}
	signatures := header.Get("webhook-signature")
	if signatures == "" {
		return nil, ErrHeader
	}
	signed := content(id, stamp, body)
	count := 0
	for item := range strings.SplitSeq(signatures, " ") {
		if count++; count > maxSignatures {
			break
		}
		version, encoded, _ := strings.Cut(item, ",")
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if err == nil && v.accepts(version, signature, signed) {
			return &Webhook{ID: id, Timestamp: at, Body: body}, nil
		}
	}
	return nil, ErrSignature
}

// accepts compares in constant time.
func (v *Verifier) accepts(version string, signature, signed []byte) bool {
	switch version {
	case "v1":
		for _, key := range v.macs {
			mac := hmac.New(sha256.New, key)
			mac.Write(signed)
			if hmac.Equal(mac.Sum(nil), signature) {
				return true
			}
		}
	case "v1a":
		for _, key := range v.publics {
			if ed25519.Verify(key, signed, signature) {
				return true
			}
		}
	}
	return false
}

// content is what is signed: id, time and body, with full stops between.
func content(id, stamp string, body []byte) []byte {
	signed := make([]byte, 0, len(id)+len(stamp)+len(body)+2)
	signed = append(append(append(signed, id...), '.'), stamp...)
	return append(append(signed, '.'), body...)
}

type webhookKey struct{}

// Handler is a middleware that lets only webhooks through that are Kapsel's. The handler behind it finds the webhook with FromContext, and
// may read the body again. Others are answered 400 when they are malformed, 413 when they are too large, and else 401.
func (v *Verifier) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, v.MaxBodyBytes))
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			http.Error(w, ErrTooLarge.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil {
			http.Error(w, "the body could not be read", http.StatusBadRequest)
			return
		}
		webhook, err := v.Verify(r.Header, body)
		switch {
		case errors.Is(err, ErrHeader):
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		case err != nil:
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), webhookKey{}, webhook))
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// FromContext is the webhook that Handler verified, nil without one.
func FromContext(ctx context.Context) *Webhook {
	webhook, _ := ctx.Value(webhookKey{}).(*Webhook)
	return webhook
}
