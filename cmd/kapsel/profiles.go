package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// profile is a server and a key for it.
type profile struct {
	URL    string `yaml:"url"`
	APIKey string `yaml:"api_key,omitempty"`
}

// profiles is the file that holds them. It holds keys, so nobody else may read it.
type profiles struct {
	Current  string             `yaml:"current,omitempty"`
	Profiles map[string]profile `yaml:"profiles"`
}

// maxConfigBytes is far more than a file of profiles has.
const maxConfigBytes = 1 << 20

func profilesPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the directory of configuration: %w", err)
	}
	return filepath.Join(dir, "kapsel", "config.yaml"), nil
}

// readProfiles reads the file; without one there are none.
func readProfiles() (profiles, error) {
	all := profiles{Profiles: make(map[string]profile)}
	path, err := profilesPath()
	if err != nil {
		return all, nil // no home directory: nothing to read
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return all, fmt.Errorf("read profiles: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return all, usageError(fmt.Errorf("%s can be read by others and holds API keys: chmod 600 it", path))
	}
	if info.Size() > maxConfigBytes {
		return all, usageError(fmt.Errorf("%s is larger than 1 MiB: it cannot be a file of profiles", path))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return all, fmt.Errorf("read profiles: %w", err)
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil && !errors.Is(err, io.EOF) {
		return all, usageError(fmt.Errorf("%s: %w: mend it, or remove it and say kapsel profiles set", path, err))
	}
	if all.Profiles == nil {
		all.Profiles = make(map[string]profile)
	}
	return all, nil
}

// write replaces the file, whole or not at all.
func (p profiles) write() error {
	path, err := profilesPath()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write profiles: %w", err)
	}
	text, err := yaml.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode profiles: %w", err)
	}
	err = writeWhole(path, 0o600, func(file io.Writer) error {
		_, err := file.Write(text)
		return err
	})
	if err != nil {
		return fmt.Errorf("write profiles: %w", err)
	}
	return nil
}

// chosen is the profile of that name, or with "" the current one. nil: there is none.
func (p profiles) chosen(name string) (*profile, error) {
	if name == "" {
		name = p.Current
	}
	if name == "" {
		return nil, nil
	}
	found, ok := p.Profiles[name]
	if !ok {
		return nil, usageError(fmt.Errorf("there is no profile %q: kapsel profiles list shows those that there are", name))
	}
	return &found, nil
}

func newProfiles() *cobra.Command {
	cmd := &cobra.Command{Use: "profiles", Short: "Remember servers and API keys by name", Args: noArgs,
		Long: `Keeps servers and API keys in a file that only you can read, config.yaml of kapsel in the directory of your
configuration (~/.config on Linux). --profile, or KAPSEL_PROFILE, chooses one; otherwise the current one is taken. --url
and --api-key come before any profile, and their variables before one that --profile does not choose.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError(errors.New("say what to do: kapsel profiles set, use, list or delete"))
		},
	}
	cmd.AddCommand(newProfilesSet(), newProfilesUse(), newProfilesList(), newProfilesDelete())
	return cmd
}

func newProfilesSet() *cobra.Command {
	var server string
	cmd := &cobra.Command{Use: "set NAME", Short: "Remember a server and the API key that standard input has", Args: oneArg,
		Long: `Remembers a server under a name, and the API key that is read from standard input, so that it stands neither in the
process list nor in the history of your shell. The first profile becomes the current one.`,
		Example: `  kapsel profiles set production --url https://kapsel.example.com < key.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if server == "" {
				return usageError(errors.New("--url must be the address of a server, such as https://kapsel.example.com"))
			}
			if err := checkURL("--url", server); err != nil {
				return err
			}
			if args[0] == "" || strings.ContainsFunc(args[0], func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				return usageError(errors.New("the name of a profile has at least one character, and no spaces"))
			}
			all, err := readProfiles()
			if err != nil {
				return err
			}
			line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 1<<10)).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read the API key: %w", err)
			}
			key := strings.TrimSpace(line)
			if !strings.HasPrefix(key, "kps_") {
				return usageError(errors.New("standard input has no API key (kps_…): pipe one in"))
			}
			if err := checkKey(key); err != nil {
				return err
			}
			all.Profiles[args[0]] = profile{URL: strings.TrimRight(server, "/"), APIKey: key}
			if all.Current == "" {
				all.Current = args[0]
			}
			return all.write()
		},
	}
	cmd.Flags().StringVar(&server, "url", "", "address of the server")
	return cmd
}

func newProfilesUse() *cobra.Command {
	return &cobra.Command{Use: "use NAME", Short: "Make a profile the current one", Args: oneArg,
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := readProfiles()
			if err != nil {
				return err
			}
			if _, err := all.chosen(args[0]); err != nil {
				return err
			}
			all.Current = args[0]
			return all.write()
		},
	}
}

func newProfilesDelete() *cobra.Command {
	return &cobra.Command{Use: "delete NAME", Short: "Forget a profile", Args: oneArg,
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := readProfiles()
			if err != nil {
				return err
			}
			if _, found := all.Profiles[args[0]]; !found {
				return usageError(fmt.Errorf("there is no profile %q", args[0]))
			}
			delete(all.Profiles, args[0])
			if all.Current == args[0] {
				all.Current = ""
			}
			return all.write()
		},
	}
}

func newProfilesList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List profiles, without their keys", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := readProfiles()
			if err != nil {
				return err
			}
			names := make([]string, 0, len(all.Profiles))
			for name := range all.Profiles {
				names = append(names, name)
			}
			slices.Sort(names)
			out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(out, "NAME\tCURRENT\tURL")
			for _, name := range names {
				current := "-"
				if name == all.Current {
					current = "yes"
				}
				fmt.Fprintf(out, "%s\t%s\t%s\n", name, current, printable(all.Profiles[name].URL))
			}
			return out.Flush()
		},
	}
}
