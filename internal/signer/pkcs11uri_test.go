package signer

import (
	"strings"
	"testing"
)

func TestPKCS11URIsAreReadAsRFC7512Says(t *testing.T) {
	u, err := parsePKCS11URI("pkcs11:token=The%20Software%20PKCS%2311;manufacturer=Snake%20Oil;serial=1;slot-id=7;object=log;id=%01%02;type=private" +
		"?module-path=/usr/lib/x.so&pin-value=1%26234")
	if err != nil {
		t.Fatal(err)
	}
	pin, err := u.pin()
	if err != nil || string(pin) != "1&234" {
		t.Errorf("PIN %q, %v", pin, err)
	}
	if u.token != "The Software PKCS#11" || u.manufacturer != "Snake Oil" || u.serial != "1" || *u.slotID != 7 || u.object != "log" ||
		u.id != "\x01\x02" || u.modulePath != "/usr/lib/x.so" {
		t.Errorf("read as %+v", u)
	}
}

func TestBadPKCS11URIsAreRefusedWithoutTheirSecrets(t *testing.T) {
	const tail = "?module-path=/m.so&pin-value=hunter2"
	for _, uri := range []string{
		"", "pkcs11:", "pkcs11:token=a" + tail, "pkcs11:object=a" + tail, "pkcs11:token=a;object=b?pin-value=hunter2", "pkcs11:token=a;token=b;object=c" + tail,
		"pkcs11:token=a;object=%zz" + tail, "pkcs11:token=a;object=b;type=cert" + tail, "pkcs11:token=a;object=b;slot-id=x" + tail,
		"pkcs11:token=a;object=b;unknown=c" + tail, "pkcs11:token=a;object=b" + tail + "&pin-source=/x", "pkcs11:token=a;object=b" + tail + "&module-name=x",
		"pkcs11:token=a;object" + tail, "pkcs11:token=a;object=" + strings.Repeat("b", maxURIBytes) + tail,
	} {
		if u, err := parsePKCS11URI(uri); err == nil {
			t.Errorf("%.80q was read as %+v", uri, u)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error holds the PIN: %v", err)
		}
	}
	if _, err := Open(t.Context(), "http://key"); err == nil {
		t.Error("a URL of no kind was opened")
	}
}

func FuzzPKCS11URI(f *testing.F) {
	f.Add("pkcs11:token=a;object=b?module-path=/m.so&pin-value=1")
	f.Fuzz(func(t *testing.T, uri string) {
		if u, err := parsePKCS11URI(uri); err == nil && u.modulePath == "" {
			t.Error("no module")
		}
	})
}
