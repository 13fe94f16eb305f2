//go:build ignore

// Reads Kubernetes manifests from standard input and decodes each strictly into the type of its kind: a field that does not
// exist, is there twice, or has a value of another type is an error. Prints what it read. Run with -modfile=tools/helm.mod.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := yaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	read := 0
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			object, kind, decodeErr := decoder.Decode(document, nil, nil)
			if err = decodeErr; err == nil {
				fmt.Printf("%s: %T\n", kind.Kind, object)
				read++
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "manifest:", err)
			os.Exit(1)
		}
	}
	if read == 0 {
		fmt.Fprintln(os.Stderr, "no manifest")
		os.Exit(1)
	}
}
