package secret_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/kapsel-dev/kapsel/internal/secret"
)

// service is a KMS's key in this process. It takes little at a time, and can be away.
type service struct {
	tink.AEAD
	away  atomic.Bool
	asked atomic.Int64
}

var errAway = errors.New("no route to the KMS")

func (s *service) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	s.asked.Add(1)
	if s.away.Load() || len(plaintext) > 64 { // a data key, and no keyset
		return nil, errAway
	}
	return s.AEAD.Encrypt(plaintext, associatedData)
}

func (s *service) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	s.asked.Add(1)
	if s.away.Load() {
		return nil, errAway
	}
	return s.AEAD.Decrypt(ciphertext, associatedData)
}

func newService(t *testing.T) *service {
	t.Helper()
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	key, err := aead.New(handle)
	if err != nil {
		t.Fatal(err)
	}
	return &service{AEAD: key}
}

func openWrapped(t *testing.T, path string, kms tink.AEAD) *secret.Keyring {
	t.Helper()
	ring, err := secret.Open(path, kms)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// wantEncrypted fails unless the file has an encrypted keyset and nothing in the clear.
func wantEncrypted(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil || fields["encryptedKeyset"] == nil || fields["key"] != nil || strings.Contains(string(text), "keyData") {
		t.Errorf("not an encrypted keyset: %s (%v)", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode of the keyset: %v (%v)", info.Mode(), err)
	}
}

func TestFirstStartWithAKMSMakesAnEncryptedKeyset(t *testing.T) {
	path, kms := filepath.Join(t.TempDir(), "keyset"), newService(t)
	sealed := seal(t, openWrapped(t, path, kms), hidden)
	wantEncrypted(t, path)
	if got, err := openWrapped(t, path, kms).Unseal(sealed, place); err != nil || string(got.Reveal()) != hidden {
		t.Errorf("after reopening: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	encoded := base64.StdEncoding.EncodeToString(text)
	ring, err := secret.Decode(encoded, kms)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Unseal(sealed, place); err != nil {
		t.Errorf("from the environment: %v", err)
	}
	if _, err := secret.Decode(encoded, nil); err == nil || !strings.Contains(err.Error(), "--secrets-kms") {
		t.Errorf("from the environment without the KMS: %v", err)
	}
	if _, err := secret.Open(path, nil); err == nil || !strings.Contains(err.Error(), "--secrets-kms") {
		t.Errorf("without the KMS: %v, want the flag to be named", err)
	}
	if _, err := secret.Open(path, newService(t)); err == nil {
		t.Error("another key of the KMS opened it")
	}
	kms.away.Store(true)
	if _, err := secret.Open(path, kms); err == nil || !strings.Contains(err.Error(), errAway.Error()) {
		t.Errorf("with the KMS away: %v", err)
	}
	other := filepath.Join(t.TempDir(), "keyset")
	if _, err := secret.Open(other, kms); err == nil {
		t.Error("a keyset was made without the KMS")
	}
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file is left: %v", err)
	}
}

func TestClearKeysetIsRefusedUntilItIsWrapped(t *testing.T) {
	path, kms := filepath.Join(t.TempDir(), "keyset"), newService(t)
	sealed := seal(t, open(t, path), hidden)
	clear, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Open(path, kms); err == nil || !strings.Contains(err.Error(), "kapsel secrets wrap") {
		t.Errorf("a clear keyset: %v, want the remedy", err)
	}
	kms.away.Store(true)
	if err := secret.Wrap(path, kms); err == nil {
		t.Error("wrapped without the KMS")
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(clear) {
		t.Errorf("a wrap that failed changed the file (%v)", err)
	}
	kms.away.Store(false)
	if err := secret.Wrap(path, kms); err != nil {
		t.Fatal(err)
	}
	wantEncrypted(t, path)
	if _, err := openWrapped(t, path, kms).Unseal(sealed, place); err != nil {
		t.Errorf("what was sealed before: %v", err)
	}
	if err := secret.Wrap(path, kms); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("wrapped twice: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v (%v), want only the keyset", entries, err)
	}
}

// A rotation works as on a clear file, and running nodes need the KMS for nothing else.
func TestRunningKeyringFollowsARotationOfAWrappedKeyset(t *testing.T) {
	path, kms := filepath.Join(t.TempDir(), "keyset"), newService(t)
	ring := openWrapped(t, path, kms)
	old := ring.Primary()
	before := seal(t, ring, hidden)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- ring.Run(ctx) }()
	if _, err := secret.Prepare(path, kms); err != nil {
		t.Fatal(err)
	}
	fresh, err := secret.Promote(path, kms)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ring.Primary() != fresh; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the running keyring has not taken the new key over")
		}
	}
	if _, err := ring.Unseal(before, place); err != nil {
		t.Errorf("sealed before: %v", err)
	}
	if removed, err := secret.Prune(path, kms, nil); err != nil || len(removed) != 1 || removed[0] != old {
		t.Errorf("pruned %v, %v", removed, err)
	}
	wantEncrypted(t, path)
	for deadline := time.Now().Add(30 * time.Second); len(ring.Info().Keys) != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the running keyring still has the old key")
		}
	}

	kms.away.Store(true)
	asked := kms.asked.Load()
	time.Sleep(secret.ReloadInterval + secret.ReloadInterval/4) // a look at the file at least
	if n := kms.asked.Load() - asked; n != 0 {
		t.Errorf("the KMS was asked %d times about a file that has not changed", n)
	}
	if _, err := ring.Unseal(seal(t, ring, hidden), place); err != nil {
		t.Errorf("with the KMS away: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Prepare(path, kms); err == nil {
		t.Error("rotated without the KMS")
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(text) {
		t.Errorf("a rotation that failed changed the file (%v)", err)
	}
	cancel()
	if err := <-ran; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

func TestDamagedOrForeignWrappedKeysetIsRefused(t *testing.T) {
	kms := newService(t)
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	var foreign strings.Builder // the same key has encrypted it, for something else
	if err := handle.WriteWithAssociatedData(keyset.NewJSONWriter(&foreign), aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), kms), []byte("backup")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"foreign": foreign.String(), "no base64": `{"encryptedKeyset":"!` + hidden + `"}`, "short": `{"encryptedKeyset":"AAAA"}`,
		"long data key": `{"encryptedKeyset":"/////wAAAAA="}`, "empty": `{"encryptedKeyset":""}`, "list": `[]`, "null": `null`,
		"both": `{"encryptedKeyset":"AAAA","key":[{}]}`, "number": `{"encryptedKeyset":1}`,
	} {
		path := filepath.Join(t.TempDir(), "keyset")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := secret.Open(path, kms); err == nil || strings.Contains(err.Error(), hidden) {
			t.Errorf("%s: error = %v, want one without the file's text", name, err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != text {
			t.Errorf("%s: the file was changed (%v)", name, err)
		}
	}
}

// Rows under a key that is not there yet must not each wait for a KMS that fails.
func TestKMSThatFailsIsNotAskedForEachRow(t *testing.T) {
	path, kms := filepath.Join(t.TempDir(), "keyset"), newService(t)
	stale := openWrapped(t, path, kms)
	if _, err := secret.Prepare(path, kms); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Promote(path, kms); err != nil {
		t.Fatal(err)
	}
	sealed := seal(t, openWrapped(t, path, kms), hidden)
	kms.away.Store(true)
	asked := kms.asked.Load()
	for range 3 {
		time.Sleep(secret.ReloadInterval/10 + 10*time.Millisecond)
		if _, err := stale.Unseal(sealed, place); !errors.Is(err, secret.ErrUnseal) {
			t.Errorf("error %v, want ErrUnseal", err)
		}
	}
	if n := kms.asked.Load() - asked; n != 1 {
		t.Errorf("the KMS was asked %d times, want once", n)
	}
	kms.away.Store(false)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- stale.Run(ctx) }()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := stale.Unseal(sealed, place); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the new key is not there though the KMS is back")
		}
	}
	cancel()
	<-ran
}
