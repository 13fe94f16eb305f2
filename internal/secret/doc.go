// Package secret keeps secrets from being read where they should not be: in the database, by
// encryption at rest ([Keyring]), and in logs, errors and replies, by a type that prints as
// "[redacted]" ([Secret]).
//
// A Keyring is a Tink keyset in a file that only Kapsel's user may read, in the clear or encrypted
// under a key in a KMS. Each secret is sealed under a fresh data key, which the keyset seals in
// turn, so the keyset can be wrapped by a KMS ([Wrap]), or gain new keys, without touching how rows
// look. What is sealed for one row does not open
// for another: tenant, row and purpose are bound in as associated data.
//
// Losing the keyset file is losing every sealed secret. It belongs in the backup, apart from
// the database's.
package secret
