package checkpoint

import (
	"crypto/ed25519"
	"testing"
	"time"
)

// A checkpoint that is read has one spelling.
func FuzzParse(f *testing.F) {
	f.Add("example.com/log/1\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n")
	f.Add("\n\n\n")
	f.Add("a\n00\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := Parse(text); err == nil && c.Text() != text {
			t.Fatalf("%q is read as %q", text, c.Text())
		}
	})
}

// A note opens with the key only if the key has signed it.
func FuzzOpen(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	c := Checkpoint{Origin: "example.com/log/1", Size: 5}
	signed, err := Sign(c, time.Unix(1700000000, 0), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(c.Text() + "\n\u2014 example.com/log/1 AAAA\n")
	f.Fuzz(func(t *testing.T, note string) {
		opened, _, err := Open(note, c.Origin, key.Public().(ed25519.PublicKey))
		if err == nil && opened.Text() != c.Text() {
			t.Fatalf("%q was opened", note)
		}
	})
}
