package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

func TestReferenceIsUpToDate(t *testing.T) {
	pages, err := render()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range pages {
		if got, err := os.ReadFile(filepath.Join("../../docs", path)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/%s is not what make generate writes (%v)", path, err)
		}
	}
	if files, err := filepath.Glob("../../docs/api/*"); err != nil || len(files) != len(pages)-1 {
		t.Errorf("%d files in docs/api, %v, want %d", len(files), err, len(pages)-1)
	}
}

func TestRuleWithoutWordsIsAnError(t *testing.T) {
	field := kapselv1.File_kapsel_v1_common_proto.Messages().ByName("Header").Fields().ByName("name")
	for rule, want := range map[*validate.StringRules]string{
		{MinLen: proto.Uint64(1), MaxLen: proto.Uint64(2)}:          "at least 1 characters; at most 2 characters",
		{WellKnown: &validate.StringRules_Hostname{Hostname: true}}: "",
		{Prefix: proto.String("x"), MaxLen: proto.Uint64(2)}:        "",
		{In: []string{"a", "b|c"}}:                                  "of `a`, `b\\|c`",
	} {
		words, err := describe(field, &validate.FieldRules{Type: &validate.FieldRules_String_{String_: rule}})
		if got := strings.Join(words, "; "); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%v: got %q, %v, want %q", rule, got, err, want)
		}
	}
}
