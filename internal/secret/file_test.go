package secret_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/kapsel-dev/kapsel/internal/secret"
)

func TestFirstStartMakesAPrivateFileThatLaterStartsRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keyset.json")
	sealed := seal(t, open(t, path), hidden)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode = %v, want -rw-------", info.Mode())
	}
	got, err := open(t, path).Unseal(sealed, place)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Reveal()) != hidden {
		t.Errorf("after reopening got %q, want %q", got.Reveal(), hidden)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("directory holds %v, want only the keyset", entries)
	}
}

func TestLooseModeIsRefusedWithTheRemedy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyset.json")
	open(t, path)
	for _, mode := range []os.FileMode{0o640, 0o644, 0o604, 0o660, 0o610, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := secret.Open(path, nil); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: error = %v, want one that says chmod 600", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o600, 0o400} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		open(t, path)
	}
}

func TestConcurrentFirstStartsShareOneKey(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "keyset.json")
		rings := make([]*secret.Keyring, 8)
		errs := make([]error, len(rings))
		var starts sync.WaitGroup
		for i := range rings {
			starts.Go(func() { rings[i], errs[i] = secret.Open(path, nil) })
		}
		starts.Wait()
		for i, err := range errs {
			if err != nil {
				t.Fatalf("start %d: %v", i, err)
			}
		}
		sealed := seal(t, rings[0], hidden)
		for i, ring := range rings {
			if _, err := ring.Unseal(sealed, place); err != nil {
				t.Fatalf("start %d has another key than start 0: %v", i, err)
			}
		}
	}
}

func TestWhatIsNoKeysetIsRefusedAndLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty": "", "text": hidden, "empty object": "{}", "no keys": `{"primaryKeyId":1,"key":[]}`, "large": strings.Repeat(" ", 1<<20+1),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := secret.Open(path, nil); err == nil || strings.Contains(err.Error(), hidden) {
			t.Errorf("%s: error = %v, want one without the file's text", name, err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != text {
			t.Errorf("%s: file was changed (%v)", name, err)
		}
	}
	if _, err := secret.Open(dir, nil); err == nil {
		t.Error("a directory was taken for a keyset")
	}
	if _, err := secret.Open(filepath.Join(dir, "absent", "keyset.json"), nil); err == nil {
		t.Error("a missing directory was made up")
	}
}

func TestKeysetWithANewPrimaryKeyStillOpensOldSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyset.json")
	old := open(t, path)
	sealedBefore := seal(t, old, hidden)
	addPrimaryKey(t, path)
	rotated := open(t, path)
	if got, err := rotated.Unseal(sealedBefore, place); err != nil || string(got.Reveal()) != hidden {
		t.Errorf("sealed before the rotation: %q, %v", got.Reveal(), err)
	}
	sealedAfter := seal(t, rotated, hidden)
	if _, err := rotated.Unseal(sealedAfter, place); err != nil {
		t.Errorf("sealed after the rotation: %v", err)
	}
	if _, err := old.Unseal(sealedAfter, place); err == nil {
		t.Error("the new key was not used for sealing")
	}
}

func addPrimaryKey(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	manager := keyset.NewManagerFromHandle(handle)
	id, err := manager.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.SetPrimary(id); err != nil {
		t.Fatal(err)
	}
	if handle, err = manager.Handle(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&out)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
