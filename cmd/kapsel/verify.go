package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

const (
	maxPackageBytes = 4 << 20
	maxKeyFileBytes = 64 << 10
	servedTimeout   = 30 * time.Second
)

func newVerify() *cobra.Command {
	var keys []string
	var url string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a proof package offline",
		Long: `Checks a proof package and reports in plain words what it proves. The key must come from elsewhere
than the package: from the operator, from GetLog, or from an earlier check. Without one the package can only be
consistent in itself. With --url the log as it is served now must stand by the package too.

Exit code 0 only for a full proof.`,
		Example: `  kapsel verify proof.json --key 'log.example.com/log/1+1a2b3c4d+AbCd…'
  kapsel verify proof.json --key @log.pub --url https://log.example.com/log/1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readBounded(cmd.InOrStdin(), args[0], maxPackageBytes)
			if err != nil {
				return err
			}
			trusted, err := readKeys(keys)
			if err != nil {
				return err
			}
			report, err := verify.Verify(data, verify.Options{TrustedKeys: trusted})
			if report != nil {
				if err := report.WriteText(cmd.OutOrStdout()); err != nil {
					return fmt.Errorf("print report: %w", err)
				}
			}
			if err != nil {
				var refused *verify.Error
				if !errors.As(err, &refused) {
					return usageError(err)
				}
				return fmt.Errorf("refused: %w", err)
			}
			if !report.Full {
				return errors.New("not a full proof: give the log's key with --key")
			}
			if url == "" {
				return nil
			}
			client := &http.Client{Timeout: servedTimeout}
			if err := verify.CheckServed(cmd.Context(), client, strings.TrimSuffix(url, "/"), report.Package, trusted); err != nil {
				return fmt.Errorf("compare with the served log: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The log served at %s stands by this record.\n", url)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "the log's verifier key, or @FILE with one a line; may be repeated")
	cmd.Flags().StringVar(&url, "url", "", "the log's address, to compare with what it serves now")
	cmd.Flags().Lookup("url").Annotations = map[string][]string{notFromEnvironment: nil} // KAPSEL_URL is a server's
	return cmd
}

func readKeys(arguments []string) ([]string, error) {
	var keys []string
	for _, argument := range arguments {
		path, isFile := strings.CutPrefix(argument, "@")
		if !isFile {
			keys = append(keys, argument)
			continue
		}
		data, err := readBounded(os.Stdin, path, maxKeyFileBytes)
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		keys = append(keys, strings.Fields(string(data))...)
	}
	return keys, nil
}
