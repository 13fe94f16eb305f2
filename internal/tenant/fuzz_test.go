package tenant

import "testing"

// What is well-formed as a key is so with its own checksum only: a typo never reaches the database.
func FuzzKey(f *testing.F) {
	key := NewKey().Text()
	f.Add(key, 3)
	f.Add("", 0)
	f.Add(key[:len(key)-1], 1)
	f.Fuzz(func(t *testing.T, text string, at int) {
		if !wellFormed(text) {
			return
		}
		if at < 0 || at >= len(text) {
			return
		}
		spoiled := []byte(text)
		if spoiled[at] = 'x'; text[at] == 'x' {
			spoiled[at] = 'y'
		}
		if wellFormed(string(spoiled)) {
			t.Fatalf("%q and %q are both well-formed", text, spoiled)
		}
	})
}
