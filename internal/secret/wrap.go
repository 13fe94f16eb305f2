package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// wrapPurpose is bound into an encrypted keyset: what the same key in the KMS has encrypted for another purpose is no keyset.
const wrapPurpose = "kapsel/keyset/v1"

var (
	errNotKeyset = errors.New("not a Tink keyset in JSON: restore it from its backup")
	errClear     = errors.New("the keyset is in the clear, and --secrets-kms is set: encrypt its file with kapsel secrets wrap")
	errEncrypted = errors.New("the keyset is encrypted by a KMS: name the key there with --secrets-kms")
)

// Wrap encrypts the keyset at path, which is in the clear, under kms. What seals secrets stays the same.
func Wrap(path string, kms tink.AEAD) error {
	return replace(path, func(text []byte) ([]byte, error) {
		handle, err := parse(text, nil)
		if errors.Is(err, errEncrypted) {
			return nil, errors.New("it is encrypted by a KMS already")
		}
		if err != nil {
			return nil, err
		}
		return format(handle, kms)
	})
}

// wrapped encrypts under a data key, and only that under kms: a keyset can be larger than what a KMS takes.
func wrapped(kms tink.AEAD) tink.AEAD {
	return aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), kms)
}

func parse(text []byte, kms tink.AEAD) (*keyset.Handle, error) {
	// No error of a parser is shown: it could quote the file.
	var form struct {
		EncryptedKeyset string
		Key             []json.RawMessage
	}
	if err := json.Unmarshal(text, &form); err != nil {
		return nil, errNotKeyset
	}
	switch encrypted, clear := form.EncryptedKeyset != "", len(form.Key) > 0; {
	case encrypted == clear:
		return nil, errNotKeyset
	case encrypted && kms == nil:
		return nil, errEncrypted
	case clear && kms != nil:
		return nil, errClear
	case clear:
		handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
		if err != nil {
			return nil, errNotKeyset
		}
		return handle, nil
	}
	if _, err := keyset.NewJSONReader(bytes.NewReader(text)).ReadEncrypted(); err != nil {
		return nil, errNotKeyset
	}
	handle, err := keyset.ReadWithAssociatedData(keyset.NewJSONReader(bytes.NewReader(text)), wrapped(kms), []byte(wrapPurpose))
	if err != nil {
		return nil, fmt.Errorf("decrypt by the KMS: %w", err)
	}
	return handle, nil
}

// format is what parse reads. What a KMS has encrypted is decrypted once before anybody relies on it.
func format(handle *keyset.Handle, kms tink.AEAD) ([]byte, error) {
	var text bytes.Buffer
	writer := keyset.NewJSONWriter(&text)
	if kms == nil {
		if err := insecurecleartextkeyset.Write(handle, writer); err != nil {
			return nil, err
		}
		return text.Bytes(), nil
	}
	if err := handle.WriteWithAssociatedData(writer, wrapped(kms), []byte(wrapPurpose)); err != nil {
		return nil, fmt.Errorf("encrypt by the KMS: %w", err)
	}
	if _, err := parse(text.Bytes(), kms); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}
