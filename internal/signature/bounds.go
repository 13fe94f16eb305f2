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
	// maxSecrets bounds the secrets valid at once. With maxSignatures it caps the Ed25519
	// checks of one forged request at 64, about 3 ms.
	maxSecrets = 8
	// maxFieldBytes bounds a delivery id and an event type.
	maxFieldBytes = 512
	// maxTimestampDigits lets Unix seconds run past the year 30000 and keeps int64 far off.
	maxTimestampDigits = 12
	// maxMACBytes is the size of the widest MAC or signature: HMAC-SHA512 and Ed25519.
	maxMACBytes = 64
	// maxEncodedBytes is the length of maxMACBytes in hex, the wordiest encoding.
	maxEncodedBytes = 2 * maxMACBytes
	// maxPrefixBytes bounds a configured signature prefix.
	maxPrefixBytes = 32
	// maxScratchBytes is the largest scratch buffer that goes back to a pool; one huge body
	// must not pin its size in memory for good.
	maxScratchBytes = 64 << 10
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
