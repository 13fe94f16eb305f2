package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// A rotation has steps, so that at every moment each node can open what any node seals: Prepare adds
// a key that only opens; when all nodes have the file, Promote makes it the one that seals; when no
// row needs the old keys any more, Prune removes them. Nodes that share the file need not wait
// between the first two.

// Prepare adds a key to the keyset at path that opens and does not seal yet. If the last rotation
// got no further than that, its key is the one.
func Prepare(path string) (id uint32, err error) {
	err = change(path, func(manager *keyset.Manager, info Info) error {
		if id = info.prepared(); id != 0 {
			return nil
		}
		id, err = manager.Add(aead.AES256GCMKeyTemplate())
		return err
	})
	return id, err
}

// Promote makes the key that Prepare has added the one that seals.
func Promote(path string) (id uint32, err error) {
	err = change(path, func(manager *keyset.Manager, info Info) error {
		if id = info.prepared(); id == 0 {
			return errors.New("no key is prepared")
		}
		return manager.SetPrimary(id)
	})
	return id, err
}

// Prune removes the keys that seal nothing and are not used: all but the primary, a prepared one
// and those in use.
func Prune(path string, inUse []uint32) (removed []uint32, err error) {
	err = change(path, func(manager *keyset.Manager, info Info) error {
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

// Inspect reads what the keyset at path has.
func Inspect(path string) (Info, error) {
	_, handle, err := read(path)
	if err != nil {
		return Info{}, fmt.Errorf("open keyset %s: %w", path, err)
	}
	return inspect(handle), nil
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

// change replaces the file by one with other keys: readers see the old one or the new one, whole. A
// lock file keeps two changes apart.
func change(path string, f func(*keyset.Manager, Info) error) (err error) {
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
	_, handle, err := read(path)
	if err != nil {
		return err
	}
	manager := keyset.NewManagerFromHandle(handle)
	if err := f(manager, inspect(handle)); err != nil {
		return err
	}
	if handle, err = manager.Handle(); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		return err
	}
	return place(path, text.Bytes(), os.Rename)
}
