package secret

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

const (
	// maxSecretBytes bounds what is sealed. Signing secrets and keys are far smaller; the bound
	// keeps a mistaken caller from storing payloads here.
	maxSecretBytes = 64 << 10

	// ReloadInterval is how often a keyring looks whether its file has changed.
	ReloadInterval = time.Second
)

// ErrUnseal: the ciphertext is damaged, belongs to another row, or was sealed under a key that
// is not in this keyring. Which of these cannot be told apart.
var ErrUnseal = errors.New("sealed secret does not open with this keyring and row")

// Keyring seals and unseals secrets. It is safe for concurrent use.
type Keyring struct {
	path    string // of the keyset's file; "": it came otherwise, and does not change
	kms     tink.AEAD
	current atomic.Pointer[keys]

	mu      sync.Mutex
	text    []byte // of the file, as last read
	readAt  time.Time
	failing bool // since the last look: only Run tries again then, since a KMS can take its time to fail
}

// keys are those of one state of the keyset.
type keys struct {
	envelope tink.AEAD
	primary  uint32
	ids      map[uint32]bool
}

func newKeys(handle *keyset.Handle) (*keys, error) {
	keyEncryption, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("use keyset: %w", err)
	}
	info := handle.KeysetInfo()
	k := &keys{
		envelope: aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), keyEncryption),
		primary:  info.GetPrimaryKeyId(), ids: make(map[uint32]bool),
	}
	for _, key := range info.GetKeyInfo() {
		k.ids[key.GetKeyId()] = true
	}
	return k, nil
}

// Run reads the keyset's file again whenever it has changed, until ctx ends: keys that a rotation
// adds come into use on every node without a restart. A file that cannot be used changes nothing.
func (k *Keyring) Run(ctx context.Context) error {
	if k.path == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	ticker := time.NewTicker(ReloadInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			if err := k.reload(); err != nil {
				return fmt.Errorf("reload keyset: %w", err) // the supervisor says so and tries again
			}
		}
	}
}

// reload takes over what the file has now.
func (k *Keyring) reload() (err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer func() { k.readAt, k.failing = time.Now(), err != nil }()
	text, err := readFile(k.path)
	if err != nil {
		return err
	}
	if bytes.Equal(text, k.text) { // and the KMS is not asked
		return nil
	}
	handle, err := parse(text, k.kms)
	if err != nil {
		return err
	}
	fresh, err := newKeys(handle)
	if err != nil {
		return err
	}
	k.text = text
	k.current.Store(fresh)
	return nil
}

// Seal encrypts up to 64 KiB under the keyset's primary key. The same associated data opens it.
func (k *Keyring) Seal(plaintext Secret, associatedData []byte) ([]byte, error) {
	b := plaintext.Reveal()
	if len(b) > maxSecretBytes {
		return nil, fmt.Errorf("seal secret: %d bytes is over the bound of %d", len(b), maxSecretBytes)
	}
	sealed, err := k.current.Load().envelope.Encrypt(b, associatedData)
	if err != nil {
		return nil, fmt.Errorf("seal secret: %w", err)
	}
	return sealed, nil
}

// Unseal decrypts what Seal returned, under any key of the keyset, or returns ErrUnseal. A key that
// another node has used already, and this one has not read yet, is looked for in the file first.
func (k *Keyring) Unseal(sealed, associatedData []byte) (Secret, error) {
	if id, ok := KeyID(sealed); ok && !k.current.Load().ids[id] && k.path != "" && k.mayReload() {
		_ = k.reload() // whatever is wrong with the file, Run says it
	}
	b, err := k.current.Load().envelope.Decrypt(sealed, associatedData)
	if err != nil {
		return Secret{}, ErrUnseal
	}
	return New(b), nil
}

// mayReload bounds how often rows that no key opens have the file read.
func (k *Keyring) mayReload() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.failing && time.Since(k.readAt) > ReloadInterval/10
}

// Primary is the id of the key that seals.
func (k *Keyring) Primary() uint32 { return k.current.Load().primary }

// tinkPrefix begins what a key of Tink has sealed; the key's id follows, 4 bytes, the most
// significant first (developers.google.com/tink/wire-format).
const tinkPrefix = 0x01

// KeyPrefix is what Seal's result has from its fifth byte on when that key sealed it: 5 bytes.
func KeyPrefix(id uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{tinkPrefix}, id)
}

// KeyID is the id of the key that something was sealed under: behind the length of the sealed data
// key (4 bytes) stands that key, with Tink's prefix. Nothing is proved by it.
func KeyID(sealed []byte) (id uint32, ok bool) {
	if len(sealed) < 9 || sealed[4] != tinkPrefix {
		return 0, false
	}
	return binary.BigEndian.Uint32(sealed[5:9]), true
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
