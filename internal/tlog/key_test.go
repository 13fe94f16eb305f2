package tlog

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

func TestKeyFileIsMadeOnceAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.key")
	keys := make([]*Key, 8)
	var group sync.WaitGroup
	for i := range keys {
		group.Go(func() {
			var err error
			if keys[i], err = OpenKeyFile(path); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, key := range keys {
		if key == nil || !key.Public().Equal(keys[0].Public()) {
			t.Fatalf("processes that start at once got other keys: %v, %v", key, keys[0])
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v, want 0600", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("temporary files were left: %v", entries)
	}
	if again, err := OpenKeyFile(path); err != nil || !again.Public().Equal(keys[0].Public()) {
		t.Errorf("opened again: %v, %v", again, err)
	}
}

func TestKeyFileThatOthersMayUseIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.key")
	if _, err := OpenKeyFile(path); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeyFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %v: got %v, want an error that says what to do", mode, err)
		}
	}
}

func TestDamagedKeyFileIsRefusedAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.key")
	for _, content := range []string{"", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeyFile(path); err == nil {
			t.Errorf("%q: want an error", content)
		}
		if kept, _ := os.ReadFile(path); string(kept) != content {
			t.Errorf("%q was overwritten with %q", content, kept)
		}
	}
	if _, err := OpenKeyFile(filepath.Join(path, "below")); err == nil {
		t.Error("a path below a file: want an error")
	}
}

func TestKeyPrintsNoSecretAndIsEd25519(t *testing.T) {
	key, err := OpenKeyFile(filepath.Join(t.TempDir(), "log.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%+v", key), fmt.Sprintf("%#v", key), fmt.Sprintf("%x", key)} {
		if text != fmt.Sprintf("Ed25519 key %x", []byte(key.Public())) {
			t.Errorf("printed as %s", text)
		}
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewKey(other); err == nil {
		t.Error("an ECDSA key: want an error")
	}
}

func TestHighWaterRefusesWhatIsBelowOrOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.highwater")
	at := func(size int64, root string) checkpoint.Checkpoint {
		return checkpoint.Checkpoint{Origin: testOrigin, Size: size, Root: merkle.LeafHash([]byte(root))}
	}
	mark, err := OpenHighWater(path, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := mark.Mark(); ok {
		t.Error("a new mark is set")
	}
	for _, c := range []checkpoint.Checkpoint{at(0, "a"), at(10, "b"), at(10, "b"), at(20, "c")} {
		if err := mark.advance(c); err != nil {
			t.Fatalf("advance to %d: %v", c.Size, err)
		}
	}
	mark, err = OpenHighWater(path, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := mark.Mark(); !ok || got != at(20, "c") {
		t.Errorf("read back %+v, %v", got, ok)
	}
	for _, c := range []checkpoint.Checkpoint{at(19, "c"), at(20, "d"), at(0, "a")} {
		if err := mark.advance(c); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), path) {
			t.Errorf("advance to %d: got %v, want a refusal that names the file", c.Size, err)
		}
	}
	if _, err := OpenHighWater(path, "other.example/l/1"); !errors.Is(err, ErrRefused) {
		t.Errorf("the file of another log: got %v, want a refusal", err)
	}
	if err := os.WriteFile(path, []byte(`{"origin":"`+testOrigin+`","size":-1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenHighWater(path, testOrigin); !errors.Is(err, ErrRefused) {
		t.Errorf("a damaged file: got %v, want a refusal", err)
	}
}
