package signature

import "time"

// Bounds on what one request, or one configuration, can make us do. The sender of a request is
// not known to be honest until Verify has returned nil, so each is checked before it costs.
const (
	// maxHeaderBytes bounds a signature header. A Standard Webhooks header with
	// maxSignatures Ed25519 signatures takes under 800 bytes.
	maxHeaderBytes = 4096
	// maxSignatures bounds the signatures compared per request. Rotation needs two.
	maxSignatures = 8
	// maxSecrets bounds the secrets valid at once. With maxSignatures it caps the Ed25519 and
	// ECDSA checks of one forged request at 64, about 3 ms.
	maxSecrets = 8
	// maxFieldBytes bounds a delivery id and an event type.
	maxFieldBytes = 512
	// maxSecondsDigits lets Unix seconds run past the year 30000 and keeps int64 far off.
	maxSecondsDigits = 12
	// maxMillisecondsDigits is the same for Unix milliseconds.
	maxMillisecondsDigits = 15
	// maxMACBytes is the size of the widest MAC: HMAC-SHA512. An Ed25519 signature is as long.
	maxMACBytes = 64
	// maxSignatureBytes is the size of the longest ECDSA P-256 signature in DER.
	maxSignatureBytes = 72
	// maxEncodedBytes is the length of maxMACBytes in hex, the wordiest encoding; ECDSA
	// signatures come in base64, in 96.
	maxEncodedBytes = 2 * maxMACBytes
	// maxPrefixBytes bounds a configured signature prefix.
	maxPrefixBytes = 32
	// maxScratchBytes is the largest scratch buffer that goes back to a pool; one huge body
	// must not pin its size in memory for good.
	maxScratchBytes = 64 << 10
	// maxURLBytes bounds the URL that a signature covers.
	maxURLBytes = 8 << 10
	// maxFormParameters bounds the parameters of a form that are sorted before the MAC is known
	// to be right. Twilio sends under a hundred.
	maxFormParameters = 1000
	// maxChallengeBytes bounds the text that a handshake asks to have sent back. Microsoft Graph's,
	// the longest, have some 200 bytes.
	maxChallengeBytes = 2048
)

const (
	// defaultTolerance is how far a timestamp may be from now, both ways, as in the
	// Standard Webhooks libraries and Stripe's.
	defaultTolerance = 5 * time.Minute
	// minTolerance is the resolution of the timestamps.
	minTolerance = time.Second
	// maxTolerance is the default dedup window: a replay from further back could no longer
	// be recognised as a repeat.
	maxTolerance = 24 * time.Hour
)
