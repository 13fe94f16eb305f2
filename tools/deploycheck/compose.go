//go:build ignore

// Loads a Compose file as Docker Compose does, with the reference loader of the Compose Specification, prints its services,
// and fails when one could do more than it needs. Run with -modfile=tools/compose.mod.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

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
			if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) || service.MemLimit == 0 {
				fail(fmt.Errorf("service %s may write to its image, has capabilities or no memory limit", service.Name))
			}
			if grace := service.StopGracePeriod; grace == nil || time.Duration(*grace) < 75*time.Second {
				fail(fmt.Errorf("service %s has less time to stop than a drain takes", service.Name))
			}
		}
		if !slices.Contains(service.SecurityOpt, "no-new-privileges:true") || service.Privileged || service.NetworkMode == "host" || service.Logging == nil || service.Logging.Options["max-size"] == "" {
			fail(fmt.Errorf("service %s may get more privileges, or its log may fill the disk", service.Name))
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				fail(fmt.Errorf("service %s is open to the network at port %s", service.Name, port.Published))
			}
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "compose file:", err)
	os.Exit(1)
}
