package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/signature"
)

// A preset without a text, a text without a preset, and pages that say something else than the presets.
func TestEveryPresetHasAPageThatIsUpToDate(t *testing.T) {
	var presets []string
	for _, p := range signature.Presets() {
		presets = append(presets, p.Name)
		want, err := render(p)
		if err != nil {
			t.Errorf("preset %s: %v", p.Name, err)
			continue
		}
		if got, err := os.ReadFile("../../docs/presets/" + p.Name + ".md"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/presets/%s.md is not what make generate writes (%v)", p.Name, err)
		}
	}
	slices.Sort(presets)
	have, err := texts()
	if err != nil || !slices.Equal(have, presets) {
		t.Errorf("texts and payloads of %v, %v, want those of %v", have, err, presets)
	}
	pages, err := filepath.Glob("../../docs/presets/*")
	if err != nil || len(pages) != len(presets) {
		t.Errorf("%d pages, %v, for %d presets", len(pages), err, len(presets))
	}
	index, err := os.ReadFile("../../docs/presets.md")
	if err != nil || !bytes.Contains(index, slices.Concat(tableBegin, table(), tableEnd)) {
		t.Errorf("the table of docs/presets.md is not what make generate writes (%v)", err)
	}
}
