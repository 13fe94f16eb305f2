package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/internal/fsck"
)

// fsckLogID is the one log that a service has.
const fsckLogID = 1

func newFsck() *cobra.Command {
	config := fsck.Config{LogID: fsckLogID}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Check a live database: nothing lost, nothing doubled, the log whole",
		Long: `Checks every invariant on a live database, in one read-only snapshot: each delivery is in one place, attempts
are numbered without a gap, leaf indexes are dense, leaves say what their rows say, and leaves, tiles and signed
heads are of one tree. What retention has dropped is no violation.

Exit code 0: all is well. 1: something is not, and is named. 2: the check could not be made.`,
		Example: `  kapsel fsck --database-url postgres://kapsel@db/kapsel
  kapsel fsck --deep --high-water /var/lib/kapsel/log.highwater --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config.DatabaseURL == "" {
				return usageError(errors.New("database URL is missing: set --database-url or KAPSEL_DATABASE_URL"))
			}
			report, err := fsck.Run(cmd.Context(), config)
			if err != nil {
				return usageError(fmt.Errorf("not checked: %w", err)) // exit code 2: it says nothing about the database
			}
			if err := printReport(cmd.OutOrStdout(), report, asJSON); err != nil {
				return fmt.Errorf("print report: %w", err)
			}
			if !report.Clean() {
				return errors.New("the database is not as it should be")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config.DatabaseURL, "database-url", "", "PostgreSQL connection URI, as nodes use it")
	flags.BoolVar(&config.Deep, "deep", false, "also hash every payload and compare it with the leaves")
	flags.StringVar(&config.HighWaterFile, "high-water", "", "a node's log.highwater, which the log must have reached")
	flags.BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

func printReport(w io.Writer, report *fsck.Report, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	for _, check := range report.Checks {
		verdict := "ok  "
		if check.Violations > 0 {
			verdict = "FAIL"
		}
		if _, err := fmt.Fprintf(w, "%s  %s: %d checked, %d violations, %v\n", verdict, check.Name, check.Examined, check.Violations,
			check.Took.Round(time.Millisecond)); err != nil {
			return err
		}
		for _, v := range check.Shown {
			if _, err := fmt.Fprintf(w, "      %s: %s\n", v.ID, v.Detail); err != nil {
				return err
			}
		}
		if more := check.Violations - int64(len(check.Shown)); more > 0 {
			if _, err := fmt.Fprintf(w, "      and %d more\n", more); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "%d checks in %v\n", len(report.Checks), report.Took.Round(time.Millisecond))
	return err
}
