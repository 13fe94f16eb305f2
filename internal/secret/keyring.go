package secret

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// maxSecretBytes bounds what is sealed. Signing secrets and keys are far smaller; the bound
// keeps a mistaken caller from storing payloads here.
const maxSecretBytes = 64 << 10

// ErrUnseal: the ciphertext is damaged, belongs to another row, or was sealed under a key that
// is not in this keyring. Which of these cannot be told apart.
var ErrUnseal = errors.New("sealed secret does not open with this keyring and row")

// Keyring seals and unseals secrets. It is safe for concurrent use.
type Keyring struct {
	envelope tink.AEAD
}

func newKeyring(handle *keyset.Handle) (*Keyring, error) {
	keyEncryption, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("use keyset: %w", err)
	}
	return &Keyring{envelope: aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), keyEncryption)}, nil
}

// Seal encrypts up to 64 KiB under the keyset's primary key. The same associated data opens it.
func (k *Keyring) Seal(plaintext Secret, associatedData []byte) ([]byte, error) {
	b := plaintext.Reveal()
	if len(b) > maxSecretBytes {
		return nil, fmt.Errorf("seal secret: %d bytes is over the bound of %d", len(b), maxSecretBytes)
	}
	sealed, err := k.envelope.Encrypt(b, associatedData)
	if err != nil {
		return nil, fmt.Errorf("seal secret: %w", err)
	}
	return sealed, nil
}

// Unseal decrypts what Seal returned, under any key of the keyset, or returns ErrUnseal.
func (k *Keyring) Unseal(sealed, associatedData []byte) (Secret, error) {
	b, err := k.envelope.Decrypt(sealed, associatedData)
	if err != nil {
		return Secret{}, ErrUnseal
	}
	return New(b), nil
}

// AssociatedData names the place of a sealed secret: the row that holds it, the row's tenant,
// and what the secret is for, such as "endpoint_secret". The parts before purpose are of fixed
// length, so two different places never give the same bytes.
func AssociatedData(tenantID, rowID uuid.UUID, purpose string) []byte {
	const domain = "kapsel/secret/v1\x00"
	b := make([]byte, 0, len(domain)+len(tenantID)+len(rowID)+len(purpose))
	b = append(b, domain...)
	b = append(b, tenantID[:]...)
	b = append(b, rowID[:]...)
	return append(b, purpose...)
}
