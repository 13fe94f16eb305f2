package tlog

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"
)

// keyFiles matches the key files of a state directory: log.key, which the first start makes, and those of later keys.
const keyFiles = "log*.key"

// errNoKey: the log is signed with a key that this process does not have.
var errNoKey = errors.New("this node lacks a key of the log")

// Keys are the private keys that this process can sign with. Which of them sign is the database's to say.
type Keys struct {
	dir string // of key files, looked through again when a key is missing. Empty: none

	mu   sync.Mutex
	keys []*Key
}

// NewKeys makes a set of keys that are open already.
func NewKeys(keys ...*Key) *Keys { return &Keys{keys: keys} }

// OpenKeys opens the keys that URLs name, and those in the files of a state directory. Without any URL, a directory without
// a key gets one.
func OpenKeys(ctx context.Context, dir string, urls []string) (*Keys, error) {
	k, err := OpenExistingKeys(ctx, dir, urls)
	if err != nil || len(k.keys) > 0 {
		return k, err
	}
	key, err := OpenKeyFile(filepath.Join(dir, "log.key"))
	if err != nil {
		return nil, err
	}
	k.keys = []*Key{key}
	return k, nil
}

// OpenExistingKeys does the same, and makes no key.
func OpenExistingKeys(ctx context.Context, dir string, urls []string) (*Keys, error) {
	k := &Keys{dir: dir}
	for _, url := range urls {
		key, err := OpenKey(ctx, url)
		if err != nil {
			return nil, err
		}
		k.keys = append(k.keys, key)
	}
	return k, k.reload()
}

// First is the key that a new log begins with.
func (k *Keys) First() *Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[0]
}

// find returns the key with a public half. Key files that have appeared since are seen.
func (k *Keys) find(public ed25519.PublicKey) (*Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for again := range 2 {
		for _, key := range k.keys {
			if key.public.Equal(public) {
				return key, nil
			}
		}
		if again == 0 {
			if err := k.reload(); err != nil {
				return nil, err
			}
		}
	}
	return nil, fmt.Errorf("%w, with public half %x: copy its file into the state directory, or name it with --log-key", errNoKey, []byte(public))
}

// reload adds the keys of files that were not there before.
func (k *Keys) reload() error {
	if k.dir == "" {
		return nil
	}
	paths, err := filepath.Glob(filepath.Join(k.dir, keyFiles))
	if err != nil {
		return fmt.Errorf("look for log keys: %w", err)
	}
	for _, path := range paths {
		key, err := readKeyFile(path)
		if err != nil {
			return err
		}
		known := false
		for _, other := range k.keys {
			known = known || other.public.Equal(key.public)
		}
		if !known {
			k.keys = append(k.keys, key)
		}
	}
	return nil
}

// keysInForce returns the keys that sign at this moment by the database's clock: one, or while keys change the old one and
// the new one, the newest first.
func (s *Sealer) keysInForce(ctx context.Context) ([]*Key, error) {
	rows, err := s.queries.LogKeysInForce(ctx, s.DB, s.LogID)
	if err != nil {
		return nil, fmt.Errorf("read keys in force: %w", err)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%w: log %d has no key in force", ErrRefused, s.LogID)
	}
	keys := make([]*Key, len(rows))
	for i, public := range rows {
		if keys[i], err = s.Keys.find(public); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// canSign reports whether this node has all keys that must sign. One that lacks a key leaves sealing to the others, and
// says so loudly: it looks again until its key is there.
func (s *Sealer) canSign(ctx context.Context) (bool, error) {
	_, err := s.keysInForce(ctx)
	if !errors.Is(err, errNoKey) {
		return err == nil, err
	}
	if time.Since(s.complained) > time.Minute {
		s.complained = time.Now()
		s.Logger.ErrorContext(ctx, "this node cannot seal the log", slog.Int64("log_id", int64(s.LogID)), slog.Any("error", err))
	}
	if s.tree == nil {
		return false, nil
	}
	s.forget()
	if err := s.queries.ReleaseSealerLease(ctx, s.DB, s.LogID, s.Node); err != nil {
		return false, fmt.Errorf("give sealer's lease back: %w", err)
	}
	return false, nil
}
