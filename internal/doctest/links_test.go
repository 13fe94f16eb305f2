package doctest

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

var markdown = goldmark.New(goldmark.WithExtensions(extension.GFM))

// Every link of a document to something in the repository leads to a file, and to a heading of it if it names one.
func TestLinksLeadSomewhere(t *testing.T) {
	documents := make(map[string]document)
	read := func(path string) document {
		if d, found := documents[path]; found {
			return d
		}
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		documents[path] = readDocument(source)
		return documents[path]
	}
	links := 0
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == ".git" || strings.HasSuffix(path, "presetpages/text")):
			return fs.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		for _, link := range read(path).links {
			target, err := url.Parse(link)
			if err != nil {
				t.Errorf("%s: link %q: %v", path, link, err)
				continue
			}
			if target.Scheme != "" {
				continue
			}
			links++
			to := path
			if target.Path != "" {
				to = filepath.Join(filepath.Dir(path), target.Path)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: link %q leads to no file", path, link)
				continue
			}
			if target.Fragment != "" && (filepath.Ext(to) != ".md" || !read(to).anchors[target.Fragment]) {
				t.Errorf("%s: link %q leads to no heading of %s", path, link, to)
			}
		}
		return nil
	})
	if err != nil || links < 100 {
		t.Errorf("%d links, %v", links, err)
	}
}

// document is what the test wants to know of one.
type document struct {
	links   []string
	anchors map[string]bool
}

func readDocument(source []byte) document {
	d := document{anchors: make(map[string]bool)}
	ast.Walk(markdown.Parser().Parse(text.NewReader(source)), func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch node := node.(type) {
		case *ast.Link:
			d.links = append(d.links, string(node.Destination))
		case *ast.Image:
			d.links = append(d.links, string(node.Destination))
		case *ast.Heading:
			anchor := anchorOf(plainText(node, source))
			for n := 1; d.anchors[anchor]; n++ {
				anchor = fmt.Sprintf("%s-%d", anchorOf(plainText(node, source)), n)
			}
			d.anchors[anchor] = true
		}
		return ast.WalkContinue, nil
	})
	return d
}

func plainText(node ast.Node, source []byte) string {
	var all strings.Builder
	ast.Walk(node, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if part, is := node.(*ast.Text); is && entering {
			all.Write(part.Segment.Value(source))
		}
		return ast.WalkContinue, nil
	})
	return all.String()
}

// anchorOf is what GitHub makes of a heading: lower case, without punctuation, a hyphen for each space.
func anchorOf(heading string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == ' ':
			return '-'
		case unicode.IsLetter(c) || unicode.IsNumber(c) || unicode.IsMark(c) || c == '-' || c == '_':
			return unicode.ToLower(c)
		}
		return -1
	}, heading)
}

func TestAnchorsAreGitHubs(t *testing.T) {
	d := readDocument([]byte("# A `code` & more: *x*\n## Twice\n## Twice\n[a](b.md#c) <https://example.com>\n```sh\n[no](link)\n```\n"))
	for _, want := range []string{"a-code--more-x", "twice", "twice-1"} {
		if !d.anchors[want] {
			t.Errorf("no anchor %q in %v", want, d.anchors)
		}
	}
	if len(d.links) != 1 || d.links[0] != "b.md#c" {
		t.Errorf("links %q", d.links)
	}
}
