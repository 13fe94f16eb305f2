package secret

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/kapsel-dev/kapsel/internal/durable"
)

// A rotation has steps, so that at every moment each node can open what any node seals: Prepare adds
// a key that only opens; when all nodes have the file, Promote makes it the one that seals; when no
// row needs the old keys any more, Prune removes them. Nodes that share the file need not wait
// between the first two.

// Prepare adds a key to the keyset at path that opens and does not seal yet. If the last rotation
// got no further than that, its key is the one.
func Prepare(path string, kms tink.AEAD) (id uint32, err error) {
	err = change(path, kms, func(manager *keyset.Manager, info Info) error {
		if id = info.prepared(); id != 0 {
			return nil
		}
		id, err = manager.Add(aead.AES256GCMKeyTemplate())
		return err
	})
	return id, err
}

// Promote makes the key that Prepare has added the one that seals.
func Promote(path string, kms tink.AEAD) (id uint32, err error) {
	err = change(path, kms, func(manager *keyset.Manager, info Info) error {
		if id = info.prepared(); id == 0 {
			return errors.New("no key is prepared")
		}
		return manager.SetPrimary(id)
	})
	return id, err
}

// Prune removes the keys that seal nothing and are not used: all but the primary, a prepared one
// and those in use.
func Prune(path string, kms tink.AEAD, inUse []uint32) (removed []uint32, err error) {
	err = change(path, kms, func(manager *keyset.Manager, info Info) error {
		for _, id := range info.Keys {
			if id == info.Primary || id == info.prepared() || slices.Contains(inUse, id) {
				continue
			}
			if err := manager.Delete(id); err != nil {
				return err
			}
			removed = append(removed, id)
		}
		return nil
	})
	return removed, err
}

// Info says what a keyset has, and nothing secret.
type Info struct {
	// Keys are the ids, in the order in which they were added.
	Keys []uint32
	// Primary is the key that seals.
	Primary uint32
}

// prepared is the key after the primary one, 0 when there is none.
func (i Info) prepared() uint32 {
	if last := i.Keys[len(i.Keys)-1]; last != i.Primary {
		return last
	}
	return 0
}

// Info says what the keyring has.
func (k *Keyring) Info() Info {
	current := k.current.Load()
	info := Info{Primary: current.primary}
	for id := range current.ids {
		info.Keys = append(info.Keys, id)
	}
	slices.Sort(info.Keys)
	return info
}

func inspect(handle *keyset.Handle) Info {
	given := handle.KeysetInfo()
	info := Info{Primary: given.GetPrimaryKeyId()}
	for _, key := range given.GetKeyInfo() {
		info.Keys = append(info.Keys, key.GetKeyId())
	}
	return info
}

// change replaces the file by one with other keys.
func change(path string, kms tink.AEAD, f func(*keyset.Manager, Info) error) error {
	return replace(path, func(text []byte) ([]byte, error) {
		handle, err := parse(text, kms)
		if err != nil {
			return nil, err
		}
		manager := keyset.NewManagerFromHandle(handle)
		if err := f(manager, inspect(handle)); err != nil {
			return nil, err
		}
		if handle, err = manager.Handle(); err != nil {
			return nil, err
		}
		return format(handle, kms)
	})
}

// replace puts another text into the file: readers see the old one or the new one, whole. A lock file keeps two changes apart.
func replace(path string, f func(text []byte) ([]byte, error)) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("change keyset %s: %w", path, err)
		}
	}()
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("another change is under way; if there is none, remove %s.lock", path)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close(), os.Remove(lock.Name())) }()
	text, err := readFile(path)
	if err != nil {
		return err
	}
	if text, err = f(text); err != nil {
		return err
	}
	return durable.Replace(path, text)
}
