package main

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/internal/signature"
)

// addCompletions has shells complete what is known without asking a server, and no file where none is wanted.
func addCompletions(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		addCompletions(sub)
	}
	_, argument, _ := strings.Cut(cmd.Use, " ")
	switch {
	case argument == "FILE" || cmd.HasSubCommands():
	case argument == "NAME" && cmd.Name() != "set": // of a profile that is there
		cmd.ValidArgsFunction = completeProfiles
	default:
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	for flag, complete := range map[string]cobra.CompletionFunc{
		"profile": completeProfiles,
		"preset":  completePresets,
		"format":  cobra.FixedCompletions([]string{formatPackage, formatTlogProof, formatArchive}, cobra.ShellCompDirectiveNoFileComp),
		"scope":   cobra.FixedCompletions(tenantScopes, cobra.ShellCompDirectiveNoFileComp),
	} {
		if cmd.Flags().Lookup(flag) != nil {
			cmd.RegisterFlagCompletionFunc(flag, complete)
		}
	}
}

// sayWhichShell refuses what is no shell, which cobra answers with its help: that would be taken for a script.
func sayWhichShell(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Args = noArgs
			cmd.RunE = func(*cobra.Command, []string) error {
				return usageError(errors.New("say for which shell: kapsel completion bash, fish, powershell or zsh"))
			}
		}
	}
}

func completeProfiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	all, err := readProfiles()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.Sorted(maps.Keys(all.Profiles)), cobra.ShellCompDirectiveNoFileComp
}

func completePresets(*cobra.Command, []string, string) (names []string, _ cobra.ShellCompDirective) {
	for _, preset := range signature.Presets() {
		names = append(names, preset.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
