package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is the version of a release build, which is made without version control at hand: -ldflags "-X main.release=v1.2.3".
var release string

// version is the release, else the module's version as the toolchain stamped it, else "devel".
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version, and what it was built from and with", Args: noArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			out := cmd.OutOrStdout()
			fmt.Fprintln(out, "kapsel", version())
			settings := make(map[string]string)
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					settings[s.Key] = s.Value
				}
			}
			if revision := settings["vcs.revision"]; revision != "" {
				state := ""
				if settings["vcs.modified"] == "true" {
					state = ", changed since"
				}
				fmt.Fprintf(out, "commit %s of %s%s\n", revision, settings["vcs.time"], state)
			}
			fmt.Fprintf(out, "%s %s/%s, cgo %s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, cmp.Or(settings["CGO_ENABLED"], "0"))
		},
	}
}
