package tenant

import (
	"fmt"
	"strings"
	"testing"
)

func TestKeyHasItsForm(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		key := NewKey()
		text := key.Text()
		if !strings.HasPrefix(text, "kps_") || len(text) != keyLength || !wellFormed(text) || seen[text] {
			t.Fatalf("key %q", text)
		}
		seen[text] = true
		if len(key.Hash()) != 32 || !strings.HasPrefix(text, key.Hint()) || len(key.Hint()) != 12 {
			t.Fatalf("hash %x, hint %q of %q", key.Hash(), key.Hint(), text)
		}
	}
}

func TestTyposAreCaught(t *testing.T) {
	text := NewKey().Text()
	for i := range text {
		for _, c := range "0aZ" {
			if typo := text[:i] + string(c) + text[i+1:]; typo != text && wellFormed(typo) {
				t.Errorf("%q passes for %q", typo, text)
			}
		}
	}
	for _, other := range []string{"", "kps_", text[:len(text)-1], text + "0", " " + text, strings.ToUpper(text), strings.Repeat("x", 1<<16)} {
		if wellFormed(other) {
			t.Errorf("%.80q passes", other)
		}
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	key := NewKey()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if printed := fmt.Sprintf(verb, key); strings.Contains(printed, key.Text()[len(key.Hint()):]) {
			t.Errorf("%s prints %q", verb, printed)
		}
		if printed := fmt.Sprintf(verb, struct{ Key Key }{key}); strings.Contains(printed, key.Text()[len(key.Hint()):]) {
			t.Errorf("%s of a struct prints %q", verb, printed)
		}
	}
}
