package main

import (
	"bytes"
	"testing"
)

func TestProgressIsABarOnATerminalOnly(t *testing.T) {
	for _, test := range []struct {
		done, total int64
		want        string
	}{
		{0, 10, "[..............................] 0 of 10 leaves"},
		{5, 10, "[###############...............] 5 of 10 leaves"},
		{10, 10, "[##############################] 10 of 10 leaves"},
		{12, 10, "[##############################] 10 of 10 leaves"},
		{1 << 62, 1 << 62, "[##############################] 4611686018427387904 of 4611686018427387904 leaves"},
		{7, 0, "7 leaves"},
	} {
		if got := progressText(test.done, test.total, "leaves"); got != test.want {
			t.Errorf("%d of %d: %q, want %q", test.done, test.total, got, test.want)
		}
	}
	var file bytes.Buffer
	line := newProgress(&file, "leaves")
	line.show(1, 2)
	line.end()
	if file.Len() > 0 {
		t.Errorf("no terminal got %q", file.String())
	}
}
