// Command protodeps prints the third-party proto files that the contract imports, or that its errors carry.
//
// The files come from the descriptors compiled into the Go modules that the server links, so what
// the contract is checked against and what the server runs have one version, the one in go.sum, and
// no schema registry is needed. Comments are not part of a descriptor and are lost.
//
// Usage: go run ./tools/protodeps OUTPUT_DIRECTORY
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/v2/protoprint"
	_ "google.golang.org/genproto/googleapis/api/annotations"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// copyrights holds each file to print, by its import path, with the copyright line of its authors. All are under the
// Apache License 2.0, which asks to keep it.
var copyrights = map[string]string{
	"buf/validate/validate.proto":     "Copyright 2023-2026 Buf Technologies, Inc.",
	"google/api/field_behavior.proto": "Copyright 2026 Google LLC",
	"google/rpc/error_details.proto":  "Copyright 2026 Google LLC",
}

const notice = `// %s
//
// Licensed under the Apache License, Version 2.0 (the "License");
// you may not use this file except in compliance with the License.
// You may obtain a copy of the License at
//
//     http://www.apache.org/licenses/LICENSE-2.0
//
// Unless required by applicable law or agreed to in writing, software
// distributed under the License is distributed on an "AS IS" BASIS,
// WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
// See the License for the specific language governing permissions and
// limitations under the License.
//
// Printed from its compiled descriptor by tools/protodeps; comments are left out. Do not edit.

`

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: protodeps OUTPUT_DIRECTORY")
		os.Exit(2)
	}
	if err := printAll(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "protodeps:", err)
		os.Exit(1)
	}
}

// printAll replaces directory by the files of copyrights.
func printAll(directory string) error {
	if err := os.RemoveAll(directory); err != nil {
		return err
	}
	for path, copyright := range copyrights {
		file, err := protoregistry.GlobalFiles.FindFileByPath(path)
		if err != nil {
			return fmt.Errorf("find %s: %w", path, err)
		}
		if err := printFile(filepath.Join(directory, filepath.FromSlash(path)), copyright, file); err != nil {
			return err
		}
	}
	return nil
}

func printFile(path, copyright string, file protoreflect.FileDescriptor) error {
	printer := protoprint.Printer{}
	text, err := printer.PrintProtoToString(file)
	if err != nil {
		return fmt.Errorf("print %s: %w", file.Path(), err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(fmt.Sprintf(notice, copyright)+text), 0o644)
}
