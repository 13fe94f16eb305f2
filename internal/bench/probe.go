package bench

import (
	"context"
	"time"
)

// Probe looks inside the server under test. The harness calls it before and after the
// load, never during it.
type Probe interface {
	// Progress returns counts that only ever grow. They may start anywhere, Recorded and
	// Sealed at the same place.
	Progress(ctx context.Context) (Progress, error)
	// Seals returns how long each seal took, oldest first, from the first one that the
	// probe has seen. Nil when the server does not tell.
	Seals() []time.Duration
	// Prove fetches the inclusion proof of one sealed attempt of the probe's choice, and
	// returns how long that took.
	Prove(ctx context.Context) (time.Duration, error)
}

// Progress is how far the server is.
type Progress struct {
	// Recorded is the number of attempts in the ledger.
	Recorded int64
	// Sealed is how many of them a signed tree head covers, in the order of recording:
	// once it reaches Recorded, nothing waits for a seal.
	Sealed int64
	// RoundTrips is the number of statements and transactions that the server has sent to
	// its database and waited for, without the probe's own; negative when unknown.
	RoundTrips int64
	// WALBytes is how much write-ahead log the database has written; negative when unknown.
	WALBytes int64
}
