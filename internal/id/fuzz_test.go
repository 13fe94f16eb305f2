package id

import "testing"

// An id that is read is written as it was: there is one spelling of each.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{Event.Text(New()), "evt_", "evt_7zzzzzzzzzzzzzzzzzzzzzzzzz", "evt_8zzzzzzzzzzzzzzzzzzzzzzzzz", "dst_01jzzzzzzzzzzzzzzzzzzzzzzz", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if parsed, err := Event.Parse(text); err == nil && Event.Text(parsed) != text {
			t.Fatalf("%q is read as %s", text, Event.Text(parsed))
		}
	})
}
