package signature

import "errors"

// What [Verifier.Verify] can find wrong. The errors it returns wrap one of these and say which
// header is at fault; they never quote what the request held.
var (
	// ErrMissingSignature: the signature, or a header that it covers, is absent or empty.
	ErrMissingSignature = errors.New("missing signature")
	// ErrMalformedSignature: a header is there, but is not of the form that the preset asks for.
	ErrMalformedSignature = errors.New("malformed signature")
	// ErrBadSignature: well formed, but made with another secret or over other content.
	ErrBadSignature = errors.New("signature does not match")
	// ErrStaleTimestamp: signed longer ago than the tolerance.
	ErrStaleTimestamp = errors.New("stale timestamp")
	// ErrFutureTimestamp: signed further in the future than the tolerance.
	ErrFutureTimestamp = errors.New("timestamp in the future")
)
