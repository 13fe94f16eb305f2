package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/tlog"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
	"github.com/kapsel-dev/kapsel/sdk/go/logclient"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

func newAudit() *cobra.Command {
	var flags logFlags
	var dir string
	cmd := &cobra.Command{
		Use:   "audit URL",
		Short: "Recompute a log's whole tree from its tiles, and name what differs",
		Long: `Reads every tile of the log at URL and recomputes the tree from level 0 up: each hash of a higher level must be
what the level below gives, and the root must be the one that was signed. Its memory does not grow with the log.

With --database-url the bytes of every leaf that is kept are compared with the tiles too; those that were erased count as
such (kapsel fsck checks that an erasure names them). With --api-key every proof package of the tenant is fetched and
verified, and must be of the same log. With --state-dir the log must have grown out of the head that a monitor has kept.

Exit code 1 when something differs; it is named.`,
		Example: `  kapsel audit https://log.example.com/log/1 --key @log.pub
  kapsel audit https://log.example.com/log/1 --key @log.pub --state-dir /var/lib/kapsel-monitor --database-url postgres://kapsel@db/kapsel`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := flags.client(args[0])
			if err != nil {
				return err
			}
			head, err := client.Head(cmd.Context())
			if err != nil {
				return fmt.Errorf("read the log's head: %w", err)
			}
			if dir != "" {
				known, err := (&logclient.Monitor{Client: client, Dir: dir}).Known()
				if err != nil {
					return err
				}
				if known == nil {
					return usageError(fmt.Errorf("%s has no head of a monitor: run kapsel monitor first, or leave --state-dir out", dir))
				}
				if err := client.CheckConsistent(cmd.Context(), known, head); err != nil {
					return fmt.Errorf("compare with the head that the monitor has kept: %w", err)
				}
			}
			report, err := flags.audit(cmd.Context(), client, head, cmd.ErrOrStderr())
			if report != nil {
				printAudit(cmd.OutOrStdout(), report)
			}
			return err
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&dir, "state-dir", "", "state directory of kapsel monitor, to compare with the head that it has kept")
	return cmd
}

func printAudit(w io.Writer, report *logclient.AuditReport) {
	for _, difference := range report.Differences {
		fmt.Fprintln(w, "DIFFERS ", difference)
	}
	if more := report.Found - int64(len(report.Differences)); more > 0 {
		fmt.Fprintf(w, "and %d more\n", more)
	}
	fmt.Fprintf(w, "tree size %d, root %x: %d tiles read, %d leaves compared, %d erased, %d differences\n",
		report.Head.Size, report.Head.Root, report.Tiles, report.Compared, report.Erased, report.Found)
}

// audit recomputes the tree of a head, and compares whatever else the flags give.
func (f *logFlags) audit(ctx context.Context, client logclient.Client, head *verify.Head, progress io.Writer) (*logclient.AuditReport, error) {
	a := &logclient.Audit{Client: client, Head: head}
	line := newProgress(progress, "leaves")
	if progress != nil {
		a.Progress = line.show
	}
	if f.databaseURL != "" {
		conn, err := pgx.Connect(ctx, f.databaseURL)
		if err != nil {
			return nil, usageError(fmt.Errorf("connect to database: %w", err))
		}
		defer conn.Close(context.WithoutCancel(ctx))
		source := &databaseLeaves{conn: conn}
		if a.FirstLeaf, err = source.first(ctx, head.Origin); err != nil {
			return nil, err
		}
		a.Leaves = source
	}
	report, err := a.Run(ctx)
	line.end()
	if err != nil || f.apiKey == "" {
		return report, err
	}
	n, err := f.auditPackages(ctx, client, head, line)
	line.end()
	if err == nil && progress != nil {
		fmt.Fprintf(progress, "%d proof packages verified\n", n)
	}
	return report, err
}

// auditPackages verifies all packages of a tenant: each is a full proof under a head that has grown out of the audited one.
func (f *logFlags) auditPackages(ctx context.Context, client logclient.Client, head *verify.Head, line *progressLine) (n int64, err error) {
	u, err := url.Parse(client.URL)
	if err != nil {
		return 0, usageError(err)
	}
	c, err := kapsel.New(u.Scheme+"://"+u.Host, kapsel.WithAPIKey(f.apiKey))
	if err != nil {
		return 0, usageError(err)
	}
	var checked string
	err = exportAll(ctx, c, &kapselv1.ExportProofPackagesRequest{Recorded: &kapselv1.TimeRange{}}, func(p *kapselv1.ProofPackage) error {
		report, err := verify.Verify(p.Json, verify.Options{TrustedKeys: client.Keys})
		if err != nil {
			return fmt.Errorf("leaf %d: %w", p.LeafIndex, err)
		}
		if note := report.Package.Checkpoint; note != checked {
			packaged, err := verify.OpenHead(note, client.Keys)
			if err != nil {
				return err
			}
			if err := client.CheckConsistent(ctx, head, packaged); err != nil {
				return fmt.Errorf("the head of the packages: %w", err)
			}
			checked = note
		}
		n++
		line.stage("proof packages", n, 0)
		return nil
	})
	return n, err
}

// databaseLeaves reads the ledger.
type databaseLeaves struct {
	conn  *pgx.Conn
	logID int32
}

// first is the first leaf that retention has kept, 0 when there is none at all.
func (d *databaseLeaves) first(ctx context.Context, origin string) (index int64, err error) {
	if _, err := d.conn.Exec(ctx, "set role kapsel_engine"); err != nil {
		return 0, fmt.Errorf("act as kapsel_engine: %w", err)
	}
	err = d.conn.QueryRow(ctx, "select log_id from logs where origin = $1", origin).Scan(&d.logID)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, usageError(fmt.Errorf("the database has no log %q", origin))
	}
	if err != nil {
		return 0, fmt.Errorf("find log %q: %w", origin, err)
	}
	err = d.conn.QueryRow(ctx, `select coalesce(min(leaf_index), 0) from attempts where log_id = $1`, d.logID).Scan(&index)
	if err != nil || index == 0 {
		return 0, err
	}
	// Retention drops whole days: then the leaf before the first one was signed before the oldest day that is kept, or soon
	// after its begin. Otherwise leaf 0 must be there.
	var dropped bool
	err = d.conn.QueryRow(ctx, `
select coalesce((select min(signed_at) from tree_heads where log_id = $1 and tree_size >= $2) <= interval '1 hour' + (
  select min(to_date(right(c.relname, 8), 'YYYYMMDD')) from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = 'attempts'::regclass and c.relname ~ '^attempts_\d{8}$'), false)`, d.logID, index).Scan(&dropped)
	if err != nil || !dropped {
		return 0, err
	}
	return index, nil
}

// Leaves implements logclient.LeafSource.
func (d *databaseLeaves) Leaves(ctx context.Context, first, end int64, take func(int64, *[tlog.HashSize]byte) error) error {
	rows, err := d.conn.Query(ctx, `select leaf_index, leaf from attempts where log_id = $1 and leaf_index >= $2 and leaf_index < $3 order by leaf_index`,
		d.logID, first, end)
	if err != nil {
		return err
	}
	var index int64
	var leaf []byte
	_, err = pgx.ForEachRow(rows, []any{&index, &leaf}, func() error {
		if len(leaf) == 0 {
			return take(index, nil)
		}
		hash := [tlog.HashSize]byte(tlog.RecordHash(leaf))
		return take(index, &hash)
	})
	return err
}
