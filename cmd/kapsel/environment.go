package main

import (
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kapsel-dev/kapsel/internal/fault"
)

// serviceVariable is one of those that Kubernetes gives each container for each Service, here for those named kapsel-….
var serviceVariable = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)$`)

// unknownVariables are the names in the environment that begin as those of settings do, and are no setting of any command: one
// that is mistyped would be ignored without a word.
func unknownVariables(root *cobra.Command, environment []string) (unknown []string) {
	known := map[string]bool{keysetVariable: true, fault.Variable: true, "KAPSEL_POSTGRES_BIN": true, "KAPSEL_LOG_PUBLIC_KEY": true}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, flags := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
			flags.VisitAll(func(flag *pflag.Flag) { known[environmentName(flag.Name)] = true })
		}
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(root)
	for _, variable := range environment {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "KAPSEL_") && !known[name] && !serviceVariable.MatchString(name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}
