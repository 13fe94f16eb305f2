// Package verify checks Kapsel's proof packages, the files that show what became of one webhook, without trusting
// Kapsel and without a network.
//
// A package holds the exact bytes of one leaf of the log, the leaf's audit path, and the checkpoint that the log signed.
// [Verify] recomputes all that can be recomputed (RFC 6962 section 2.1 with SHA-256, C2SP signed-note, tlog-checkpoint
// and tlog-cosignature) and refuses a file in which a single byte differs. The only thing to be told from outside is the
// log's verifier key: a key inside a package says nothing, since whoever forges a package would write his own key into it.
//
// Besides single packages there are archives of many ([VerifyArchive]) and C2SP tlog-proof files ([VerifyTlogProof]).
// Package logclient asks more, over HTTP: whether the log still stands by a checkpoint.
//
// The package depends on nothing of the server and on nothing of the network. [Package] and [Package.Encode] define the file format
// "kapsel-proof/v1", [DescribeLeaf] the readable form of a leaf in it; both are frozen.
package verify
