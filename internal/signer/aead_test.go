package signer

import (
	"errors"
	"strings"
	"testing"
)

func TestKeyInAKMSThatCannotBeOpenedSaysWhy(t *testing.T) {
	for _, url := range []string{"", "azurekms:x", "pkcs11:token=kapsel", "/etc/kapsel/key", "hunter2"} {
		if _, err := OpenAEAD(t.Context(), url); err == nil || !strings.Contains(err.Error(), "awskms") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", url, err)
		}
	}
	for name, open := range aeadSchemes {
		if _, err := open(t.Context(), name+":"); !errors.Is(err, errNotBuilt) {
			continue // built in, and tested with its tag
		}
		if _, err := OpenAEAD(t.Context(), name+":///hunter2"); err == nil || !strings.Contains(err.Error(), "-tags "+name) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
