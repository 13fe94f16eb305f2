//go:build ignore

// Loads a Compose file as Docker Compose does, with the reference loader of the Compose Specification, and prints its
// services. Run with -modfile=tools/compose.mod.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: compose FILE")
		os.Exit(2)
	}
	options, err := cli.NewProjectOptions([]string{os.Args[1]}, cli.WithOsEnv)
	if err != nil {
		fail(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		fail(err)
	}
	for _, service := range project.Services {
		fmt.Printf("service %s\n", service.Name)
		if build := service.Build; build != nil {
			if _, err := os.Stat(build.Context + "/" + build.Dockerfile); err != nil {
				fail(err)
			}
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "compose file:", err)
	os.Exit(1)
}
