//go:build pkcs11 && cgo

package signer

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"
)

const testPIN = "4711-secret"

// softHSM makes a token of its own with one Ed25519 key in it, and returns its URI without the PIN.
func softHSM(t *testing.T) string {
	t.Helper()
	util, err := exec.LookPath("softhsm2-util")
	if err != nil {
		t.Skip("softhsm2-util is not installed: on Debian, apt-get install softhsm2")
	}
	var module string
	for _, path := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(path); err == nil {
			module = path
		}
	}
	if module == "" {
		t.Skip("softhsm2-util is there, and libsofthsm2.so is not where it usually is")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(config, []byte("directories.tokendir = "+filepath.Join(dir, "tokens")+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", config)
	command := exec.CommandContext(t.Context(), util, "--init-token", "--free", "--label", "kapsel", "--so-pin", "12345678", "--pin", testPIN)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("make token: %v\n%s", err, output)
	}
	makeKey(t, module)
	return "pkcs11:token=kapsel;object=log%20key;id=%01?module-path=" + module
}

// makeKey has the token make a key that cannot leave it.
func makeKey(t *testing.T, path string) {
	t.Helper()
	module := pkcs11.New(path)
	if err := module.Initialize(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the next test has another token, which only a module that begins anew finds
		module.Finalize()
		module.Destroy()
	})
	slots, err := module.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		if info, err := module.GetTokenInfo(slot); err != nil || strings.TrimSpace(info.Label) != "kapsel" {
			continue
		}
		session, err := module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			t.Fatal(err)
		}
		if err := module.Login(session, pkcs11.CKU_USER, testPIN); err != nil {
			t.Fatal(err)
		}
		named := []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, "log key"), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{1}),
		}
		edwards25519 := []byte{0x06, 0x03, 0x2b, 0x65, 0x70} // 1.3.101.112
		_, _, err = module.GenerateKeyPair(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(0x1055, nil)},
			append(named[:3:3], pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, edwards25519)),
			append(named[:3:3], pkcs11.NewAttribute(pkcs11.CKA_SIGN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
				pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false)))
		if err != nil {
			t.Fatalf("make key in token: %v", err)
		}
		if err := module.CloseSession(session); err != nil { // and with it the login, which is the process's
			t.Fatal(err)
		}
		return
	}
	t.Fatal("the token that was made is not there")
}

func TestTokenSignsLikeEd25519(t *testing.T) {
	uri := softHSM(t)
	pinFile := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pinFile, []byte(testPIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := Open(t.Context(), uri+"&pin-source="+pinFile)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	public := key.Public().(ed25519.PublicKey)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			message := fmt.Appendf(nil, "message %d", i)
			signature, err := key.Sign(nil, message, crypto.Hash(0))
			if err != nil || !ed25519.Verify(public, message, signature) {
				t.Errorf("message %d: %v, or the signature is wrong", i, err)
			}
		})
	}
	group.Wait()
	if _, err := key.Sign(nil, make([]byte, 64), crypto.SHA512); err == nil {
		t.Error("a digest was signed as if it were a message")
	}

	// The session is lost, as when a module is restarted.
	tok := key.(*token)
	if err := tok.module.CloseSession(tok.session); err != nil {
		t.Fatal(err)
	}
	if signature, err := key.Sign(nil, []byte("again"), crypto.Hash(0)); err != nil || !ed25519.Verify(public, []byte("again"), signature) {
		t.Errorf("after the session was lost: %v", err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%x"} {
		if text := fmt.Sprintf(verb, key); text != fmt.Sprintf("PKCS#11 key %x", []byte(public)) {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	if err := os.Chmod(pinFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), uri+"&pin-source="+pinFile); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a PIN file that others may read: got %v", err)
	}
}

func TestTokenErrorsSayWhatIsWrongAndNoPIN(t *testing.T) {
	uri := softHSM(t)
	for name, test := range map[string]string{
		"wrong PIN":      uri + "&pin-value=wrong-" + testPIN,
		"no login":       uri,
		"another token":  strings.Replace(uri, "token=kapsel", "token=other", 1) + "&pin-value=" + testPIN,
		"another key":    strings.Replace(uri, "object=log%20key", "object=other", 1) + "&pin-value=" + testPIN,
		"another module": strings.Replace(uri, "libsofthsm2.so", "none.so", 1) + "&pin-value=" + testPIN,
	} {
		key, err := Open(context.Background(), test)
		if err == nil {
			key.Close()
			t.Errorf("%s: was opened", name)
		} else if strings.Contains(err.Error(), testPIN) {
			t.Errorf("%s: the error holds the PIN: %v", name, err)
		}
	}
}
