// Package signature checks the signatures that sources put on webhooks, and signs the
// webhooks that go out to destinations. It stands at both ends of a webhook's way: ingest
// asks a [Verifier] before anything is stored, delivery asks a [Signer] before each attempt.
// The handshakes by which providers try an endpoint are answered here too.
//
// How a provider signs is data: a [Preset] names the header, its list form, the encoding, the
// signed content, the timestamp rule, how the key is derived from the secret, and where the
// delivery id and event type stand. One engine reads them all, so a new provider is a new
// literal in presets.go, a known-answer test, and a text in tools/presetpages from which its page is made.
//
// The package is pure: no clock, no I/O, and nothing of Kapsel's but package jsonpath. Work for one
// request is bounded before the body is hashed (see bounds.go), comparisons of MACs take
// constant time, and no error carries a secret, a signature or a payload.
package signature
