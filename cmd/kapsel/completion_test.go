package main

import (
	"slices"
	"strings"
	"testing"
)

func TestShellsCompleteWhatIsKnown(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	if err := (profiles{Profiles: map[string]profile{"here": {}, "there": {}}}).write(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ line, want, directive string }{
		{"endpoints get ", "", ":4"},
		{"endpoints ", "rotate-secret", ":4"},
		{"endpoints list --output ", "yaml", ":4"},
		{"endpoints list --profile ", "there", ":4"},
		{"profiles use ", "here", ":4"},
		{"profiles set ", "", ":4"},
		{"events list --states ", "dead-lettered", ":4"},
		{"endpoints create --payload-format ", "json", ":4"},
		{"send --preset ", "stripe", ":4"},
		{"send ", "", ":0"},
		{"proof --format ", "tlog-proof", ":4"},
		{"keys create --scope ", "manage", ":4"},
	} {
		said := strings.Split(mustSay(t, append([]string{"__complete"}, strings.Split(test.line, " ")...)...), "\n")
		names := said[:len(said)-1]
		for i, name := range names {
			names[i], _, _ = strings.Cut(name, "\t")
		}
		if test.want != "" && !slices.Contains(names, test.want) || test.want == "" && len(names) > 0 || said[len(said)-1] != test.directive {
			t.Errorf("kapsel %s: %q, want %q and %s", test.line, said, test.want, test.directive)
		}
	}
}
