// Package tenant knows who calls: API keys, their scopes, and the tenant that they stand for.
//
// It stands before every request of the API. Its invariants: a key is stored as a hash only and appears in no error; a
// revoked or expired key ends within CacheTTL on every node, and a typo is told without asking the database. Comparing is
// safe from timing: a key is looked up by the SHA-256 of its 256 random bits, of which nobody can choose a part. What is
// remembered is bounded, and made-up keys never push out real ones.
package tenant
