// Command apireference writes docs/api.md and docs/api: every service, rpc, message, field and enum of the contract for people to
// read, a page for each proto file.
//
// Structure, comments, rules (buf.validate) and behaviour come from the contract's descriptors, the scopes from the table by which
// the server asks for them. A kind of rule that this program has no words for is an error, so that no bound is left out in silence.
// It is a program of ours because none was found that knows buf.validate and is kept up: protoc-gen-doc had its last release in 2022,
// and its support for these rules waits in a pull request.
//
// Usage: go run ./tools/apireference DOCS_DIRECTORY
package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	contractproto "github.com/kapsel-dev/kapsel/proto"
)

// paths are the contract's files, in the order of a webhook's way.
var paths = []string{
	"kapsel/v1/ingest.proto", "kapsel/v1/endpoint.proto", "kapsel/v1/destination.proto", "kapsel/v1/event.proto", "kapsel/v1/delivery.proto",
	"kapsel/v1/listen.proto", "kapsel/v1/attestation.proto", "kapsel/v1/tenant.proto", "kapsel/v1/common.proto", "kapsel/v1/error.proto",
	"kapsel/leaf/v1/leaf.proto",
}

//go:embed file.md.tmpl
var fileText string

//go:embed index.md.tmpl
var indexText string

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: apireference DOCS_DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "apireference:", err)
		os.Exit(1)
	}
}

// write replaces all pages.
func write(docs string) error {
	pages, err := render()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(docs, "api")); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(docs, "api"), 0o755); err != nil {
		return err
	}
	for path, text := range pages {
		if err := os.WriteFile(filepath.Join(docs, path), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// render makes all pages, by their paths in docs.
func render() (map[string][]byte, error) {
	files, err := contract()
	if err != nil {
		return nil, err
	}
	pages := make(map[string][]byte)
	views := make([]fileView, len(paths))
	for i, path := range paths {
		file, err := files.FindFileByPath(path)
		if err != nil {
			return nil, err
		}
		if views[i], err = newFileView(file); err != nil {
			return nil, err
		}
		if pages[filepath.Join("api", views[i].Page)], err = execute("file", fileText, views[i]); err != nil {
			return nil, err
		}
	}
	pages["api.md"], err = execute("index", indexText, views)
	return pages, err
}

// contract is the contract's files with their comments, and all that they import.
func contract() (*protoregistry.Files, error) {
	set, err := contractproto.Descriptors()
	if err != nil {
		return nil, err
	}
	if len(set.File) != len(paths) {
		return nil, fmt.Errorf("the contract has %d files, and %d are listed in this program", len(set.File), len(paths))
	}
	have := make(map[string]bool)
	for _, file := range set.File {
		have[file.GetName()] = true
	}
	for i := 0; i < len(set.File); i++ { // it grows
		for _, path := range set.File[i].Dependency {
			if have[path] {
				continue
			}
			have[path] = true
			file, err := protoregistry.GlobalFiles.FindFileByPath(path)
			if err != nil {
				return nil, fmt.Errorf("find %s: %w", path, err)
			}
			set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
		}
	}
	return protodesc.NewFiles(set)
}

func execute(name, text string, view any) ([]byte, error) {
	t, err := template.New(name).Parse(text)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	if err := t.Execute(&page, view); err != nil {
		return nil, err
	}
	return append(bytes.TrimSpace(page.Bytes()), '\n'), nil
}

// pageOf is the file name of a proto file's page.
func pageOf(file protoreflect.FileDescriptor) string {
	return strings.TrimSuffix(filepath.Base(file.Path()), ".proto") + ".md"
}
