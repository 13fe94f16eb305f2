package protocli

import "testing"

// Names, event types and answers come from tenants, and from whoever sends webhooks.
func TestPrintableTextSteersNoTerminal(t *testing.T) {
	for text, want := range map[string]string{
		"Ünïcode, 漢字, שלום":                 "Ünïcode, 漢字, שלום",
		"\x1b[31mred\a\r\n\tnext":           "?[31mred????next",
		"a\u009b31m":                        "a?31m",
		"a\xffb":                            "a?b",
		"order\u202eeman\u202c":             "order?eman?",
		"\u2066isolated\u2069, \u200emarks": "?isolated?, ?marks",
		"one\u2028two":                      "one?two",
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
