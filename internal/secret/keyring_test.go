package secret_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/kapsel-dev/kapsel/internal/secret"
)

var (
	tenant = uuid.MustParse("0190a000-0000-7000-8000-000000000001")
	row    = uuid.MustParse("0190a000-0000-7000-8000-000000000002")
	place  = secret.AssociatedData(tenant, row, "endpoint_secret")
)

func TestUnsealReturnsWhatWasSealed(t *testing.T) {
	ring := open(t, t.TempDir()+"/keyset.json")
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "plain")
		sealed, err := ring.Seal(secret.New(plain), place)
		if err != nil {
			t.Fatal(err)
		}
		if len(plain) > 8 && bytes.Contains(sealed, plain) {
			t.Fatal("sealed bytes contain the plaintext")
		}
		got, err := ring.Unseal(sealed, place)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Reveal(), plain) {
			t.Fatalf("unsealed %x, want %x", got.Reveal(), plain)
		}
	})
}

func TestSealedSecretOpensOnlyInItsPlace(t *testing.T) {
	ring := open(t, t.TempDir()+"/keyset.json")
	sealed := seal(t, ring, hidden)
	other := uuid.MustParse("0190a000-0000-7000-8000-000000000003")
	for name, ad := range map[string][]byte{
		"other tenant":       secret.AssociatedData(other, row, "endpoint_secret"),
		"other row":          secret.AssociatedData(tenant, other, "endpoint_secret"),
		"tenant and row":     secret.AssociatedData(row, tenant, "endpoint_secret"),
		"other purpose":      secret.AssociatedData(tenant, row, "destination_secret"),
		"no associated data": nil,
	} {
		if _, err := ring.Unseal(sealed, ad); !errors.Is(err, secret.ErrUnseal) {
			t.Errorf("%s: Unseal error = %v, want ErrUnseal", name, err)
		}
	}
}

func TestDamagedCiphertextDoesNotOpen(t *testing.T) {
	ring := open(t, t.TempDir()+"/keyset.json")
	sealed := seal(t, ring, hidden)
	for n := range sealed {
		if _, err := ring.Unseal(sealed[:n], place); !errors.Is(err, secret.ErrUnseal) {
			t.Fatalf("first %d of %d bytes: error = %v, want ErrUnseal", n, len(sealed), err)
		}
		flipped := bytes.Clone(sealed)
		flipped[n] ^= 1
		if _, err := ring.Unseal(flipped, place); !errors.Is(err, secret.ErrUnseal) {
			t.Fatalf("bit flipped in byte %d: error = %v, want ErrUnseal", n, err)
		}
	}
}

func TestOtherKeyringDoesNotOpen(t *testing.T) {
	sealed := seal(t, open(t, t.TempDir()+"/keyset.json"), hidden)
	if _, err := open(t, t.TempDir()+"/keyset.json").Unseal(sealed, place); !errors.Is(err, secret.ErrUnseal) {
		t.Errorf("error = %v, want ErrUnseal", err)
	}
}

func TestSealingTwiceGivesDifferentBytes(t *testing.T) {
	ring := open(t, t.TempDir()+"/keyset.json")
	if bytes.Equal(seal(t, ring, hidden), seal(t, ring, hidden)) {
		t.Error("equal secrets are recognisable by their ciphertext")
	}
}

func TestSealRefusesMoreThanTheBound(t *testing.T) {
	ring := open(t, t.TempDir()+"/keyset.json")
	if _, err := ring.Seal(secret.New(make([]byte, 64<<10)), place); err != nil {
		t.Errorf("64 KiB: %v", err)
	}
	if _, err := ring.Seal(secret.New(make([]byte, 64<<10+1)), place); err == nil {
		t.Error("a byte more than 64 KiB was sealed")
	}
}

func open(t *testing.T, path string) *secret.Keyring {
	t.Helper()
	ring, err := secret.Open(path, nil)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	return ring
}

func seal(t *testing.T, ring *secret.Keyring, text string) []byte {
	t.Helper()
	sealed, err := ring.Seal(secret.New([]byte(text)), place)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}
