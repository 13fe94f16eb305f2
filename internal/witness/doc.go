// Package witness is both sides of C2SP tlog-witness: a witness vouches, by a cosignature with a time, that a log which it
// follows has only grown since it last looked, and so that everybody is shown the same log.
//
// [Client] asks one witness for cosignatures of this log's heads, [Collector] asks all that a [Policy] names, and
// [Server] is a witness of other logs. Cosignatures are cosignature/v1 (C2SP tlog-cosignature, Ed25519).
package witness

import "time"

// Bounds of the protocol.
const (
	// maxProofLines is the specification's.
	maxProofLines = 63
	// maxRequestBytes bounds a request: 63 hashes and a checkpoint with dozens of signatures.
	maxRequestBytes = 64 << 10
	// maxResponseBytes bounds an answer: some lines, of which post-quantum ones have 3.3 KB.
	maxResponseBytes = 32 << 10
	// maxResponseLines bounds the lines of an answer. Kept are the one that verifies and one of another kind, if it has no
	// more than maxLineBytes: readers of notes take at most 100 lines, and a policy has up to 32 witnesses.
	maxResponseLines = 8
	maxLineBytes     = 4 << 10
	// requestTimeout bounds one request to a witness.
	requestTimeout = 5 * time.Second

	addCheckpointPath = "/add-checkpoint"
	sizeContentType   = "text/x.tlog.size"
)
