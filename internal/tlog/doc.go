// Package tlog makes the ledger provable. It stands at the end of a webhook's way: the recorder has written leaves with
// dense indexes, and from them this package keeps the tiles of a Merkle tree, signs its heads, and gives out proofs.
//
// [Sealer] is the only writer; over all nodes one leads at a time. [Reader] makes proofs and proof packages from tiles,
// never by rebuilding the tree. [Heads] tells those who wait for a seal. The arithmetic is in package merkle, the signed
// notes are in package checkpoint; both are pure.
//
// Invariants, each of which the sealer checks by itself before each signature:
//   - tiles are committed before a head over them is signed, and a head is signed before it is published;
//   - the last published tree is a prefix of the new one, proved from the tiles that the database gives back;
//   - no tree below the one signed last is ever signed, even if the database was rolled back (HighWater),
//     also by a node that has only seen it published;
//   - of two sealers at most one publishes: the head's size and root are compared and swapped, beside the lease.
package tlog
