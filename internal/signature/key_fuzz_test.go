package signature

import "testing"

// A secret of a tenant makes a verifier and a signer, or an error that does not quote it.
func FuzzSecret(f *testing.F) {
	private, public := NewKeyPair()
	for _, seed := range []string{NewSecret(), private, public, "whsec_", "whsk_AAAA", "", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		signer, err := NewSigner([][]byte{[]byte(secret)})
		if err == nil && signer == nil {
			t.Fatal("neither signer nor error")
		}
		public, err := PublicKey([]byte(secret))
		if err == nil && public != "" && public == secret {
			t.Fatalf("%q is its own public key", secret)
		}
	})
}
