package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/sdk/go/logclient"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

const (
	maxPackageBytes = 4 << 20
	maxKeyFileBytes = 64 << 10
	servedTimeout   = 30 * time.Second
)

// verifyRun is one call of kapsel verify.
type verifyRun struct {
	cmd           *cobra.Command
	url, leafFile string
	trusted       []string
}

func newVerify() *cobra.Command {
	var keys []string
	run := new(verifyRun)
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a proof package, an archive of them, or a tlog-proof file offline",
		Long: `Checks a proof package, an archive that kapsel export wrote, or a C2SP tlog-proof file, and reports in plain
words what it proves. The key must come from elsewhere than the file: from the operator, from GetLog, or from an earlier
check. Without one a package can only be consistent in itself, and a tlog-proof file, which names no key, is refused. With
--url the log as it is served now must stand by the file too.

Exit code 0 only for a full proof.`,
		Example: `  kapsel verify proof.json --key 'log.example.com/log/1+1a2b3c4d+AbCd…'
  kapsel verify proof.json --key @log.pub --url https://log.example.com/log/1
  kapsel verify first-quarter.tar.gz --key @log.pub`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			run.cmd = cmd
			if run.trusted, err = readKeys(keys); err != nil {
				return err
			}
			if err := checkURL("--url", run.url); err != nil {
				return err
			}
			source, err := openFile(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			defer source.Close()
			return run.file(bufio.NewReader(source))
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "the log's verifier key, or @FILE with one a line; may be repeated")
	cmd.Flags().StringVar(&run.url, "url", "", "the log's address, to compare with what it serves now")
	cmd.Flags().StringVar(&run.leafFile, "leaf", "", "file with the leaf's bytes, for a tlog-proof file that does not hold them")
	cmd.Flags().Lookup("url").Annotations = map[string][]string{notFromEnvironment: nil} // KAPSEL_URL is a server's
	return cmd
}

// file finds out what kind of file it is, by its beginning.
func (v *verifyRun) file(source *bufio.Reader) error {
	begin, _ := source.Peek(32)
	options := verify.Options{TrustedKeys: v.trusted}
	if verify.IsArchive(begin) {
		return v.archive(source, options)
	}
	data, err := io.ReadAll(io.LimitReader(source, maxPackageBytes+1))
	if err != nil {
		return fmt.Errorf("read the file: %w", err)
	}
	if len(data) > maxPackageBytes {
		return usageError(fmt.Errorf("the file is longer than %d bytes", maxPackageBytes))
	}
	var report *verify.Report
	if verify.IsTlogProof(data) {
		var leaf []byte
		if v.leafFile != "" {
			if leaf, err = readBounded(v.cmd.InOrStdin(), v.leafFile, maxPackageBytes); err != nil {
				return err
			}
		}
		report, err = verify.VerifyTlogProof(data, leaf, options)
	} else {
		report, err = verify.Verify(data, options)
	}
	if report != nil {
		if err := report.WriteText(v.cmd.OutOrStdout()); err != nil {
			return fmt.Errorf("print report: %w", err)
		}
	}
	if err != nil {
		return refused(err)
	}
	return v.served(report.Full, report.Package)
}

func (v *verifyRun) archive(source io.Reader, options verify.Options) error {
	var last *verify.Package
	report, err := verify.VerifyArchive(source, options, func(_ string, r *verify.Report) error {
		last = r.Package
		return nil
	})
	if err != nil {
		return refused(err)
	}
	if err := report.WriteText(v.cmd.OutOrStdout()); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return v.served(report.Full, last)
}

// served compares with the log as it is served, if that was asked for. All packages of an archive are for one head.
func (v *verifyRun) served(full bool, p *verify.Package) error {
	if !full {
		return errors.New("not a full proof: give the log's key with --key")
	}
	if v.url == "" || p == nil {
		return nil
	}
	client := &http.Client{Timeout: servedTimeout}
	if err := logclient.CheckServed(v.cmd.Context(), client, strings.TrimSuffix(v.url, "/"), p, v.trusted); err != nil {
		return fmt.Errorf("compare with the served log: %w", err)
	}
	fmt.Fprintf(v.cmd.OutOrStdout(), "The log served at %s stands by this record.\n", v.url)
	return nil
}

// refused tells a file that proves nothing from a call that was wrong.
func refused(err error) error {
	if because := (*verify.Error)(nil); errors.As(err, &because) {
		return fmt.Errorf("refused: %w", err)
	}
	return usageError(err)
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
	if err := verify.CheckKeys(keys); err != nil {
		return nil, usageError(fmt.Errorf("--key: %w", err))
	}
	return keys, nil
}
