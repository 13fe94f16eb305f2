// Package merkle is the arithmetic of the log: RFC 6962 hashing, the tiles that a tree is kept in, the growth of a tree
// by new leaves, and proofs read from tiles.
//
// The tree is the one of RFC 6962 section 2.1 over SHA-256. Its hashes are kept as tiles of height 8 (C2SP tlog-tiles):
// a full tile holds 256 hashes of one level, and the seven levels above them up to the next tile level are recomputed
// when they are needed. What a tree needs in order to grow is its right edge only, at most eight partial tiles.
//
// The package is pure: it reads and writes nothing by itself, has no clock, and imports nothing of Kapsel's.
package merkle
