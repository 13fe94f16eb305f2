package secret

import (
	"os"
	"path/filepath"
	"testing"
)

// Damaged or invented ciphertext gives an error, never a panic and never a secret.
func FuzzUnseal(f *testing.F) {
	ring, err := Open(filepath.Join(f.TempDir(), "keyset"), nil)
	if err != nil {
		f.Fatal(err)
	}
	place := []byte("place")
	sealed, err := ring.Seal(New([]byte("hunter2")), place)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:20])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := ring.Unseal(data, place); err == nil && string(got.Reveal()) != "hunter2" {
			t.Fatalf("%x opens", data)
		}
	})
}

// A file that is no keyset is refused.
func FuzzKeyset(f *testing.F) {
	path := filepath.Join(f.TempDir(), "keyset")
	if _, err := Open(path, nil); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}"))
	f.Add([]byte(`{"primaryKeyId":1,"key":[{"keyId":1}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "keyset")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		ring, err := Open(path, nil)
		if err != nil {
			return
		}
		if _, err := ring.Seal(New([]byte("x")), nil); err != nil {
			t.Fatalf("a keyset that cannot seal was taken: %v", err)
		}
	})
}
