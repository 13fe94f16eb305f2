// Package fsck checks the invariants of docs/architecture.md on a live database: that what was accepted is in one place,
// that attempts are numbered without a gap, that the ledger's leaves are dense and say what their rows say, and that
// leaves, tiles and signed heads are of one tree.
//
// It only reads, in one snapshot, so a database under load gives a consistent answer. It streams: its memory does not
// grow with the database. What retention has dropped, whole days at a time, is no violation. It shares the Merkle
// arithmetic with the sealer and nothing else: what writes the data does not judge it.
package fsck

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// maxShown bounds the violations that are named; all are counted.
	maxShown = 10
	role     = "kapsel_engine"

	connectTimeout = 10 * time.Second
)

// Config says what to check.
type Config struct {
	// DatabaseURL of a role that may act as kapsel_engine.
	DatabaseURL string
	// LogID of the log.
	LogID int32
	// Deep also reads every payload, and compares its hash with what the leaves say.
	Deep bool
	// HighWaterFile is a sealer's high-water mark, which the log must have reached. Optional.
	HighWaterFile string
}

// Violation is something that is not as it must be.
type Violation struct {
	// ID names the row: a TypeID, "leaf 12", "tree size 34".
	ID     string `json:"id"`
	Detail string `json:"detail"`
}

// Check is one invariant and what was found.
type Check struct {
	Name string `json:"name"`
	// Examined is how many rows were looked at.
	Examined int64 `json:"examined"`
	// Violations is how many were found, of which Shown are the first.
	Violations int64       `json:"violations"`
	Shown      []Violation `json:"shown,omitempty"`
	// Took is how long it took; the checks of one pass share its time.
	Took time.Duration `json:"took_ns"`
}

func (c *Check) violate(id, format string, arguments ...any) {
	c.Violations++
	if len(c.Shown) < maxShown {
		c.Shown = append(c.Shown, Violation{ID: id, Detail: fmt.Sprintf(format, arguments...)})
	}
}

// Report is what all checks found.
type Report struct {
	Checks []*Check      `json:"checks"`
	Took   time.Duration `json:"took_ns"`
}

// Clean reports whether there is no violation.
func (r *Report) Clean() bool {
	for _, check := range r.Checks {
		if check.Violations > 0 {
			return false
		}
	}
	return true
}

// run is one examination.
type run struct {
	Config
	tx     pgx.Tx
	report *Report
	// ledgerFrom is the first day of which attempts are kept; eventsFrom that of events.
	ledgerFrom, eventsFrom time.Time
}

// Run makes all checks. An error means that they could not be made; violations are in the report.
func Run(ctx context.Context, config Config) (*Report, error) {
	settings, err := pgx.ParseConfig(config.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	settings.ConnectTimeout = connectTimeout
	settings.RuntimeParams["role"] = role
	settings.RuntimeParams["application_name"] = "kapsel fsck"
	settings.RuntimeParams["timezone"] = "UTC"
	conn, err := pgx.ConnectConfig(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("connect to database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var report *Report
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, conn, snapshot, func(tx pgx.Tx) error {
		report, err = In(ctx, tx, config)
		return err
	})
	return report, err
}

// In makes all checks in a transaction that is open already, and sees what that sees. config.DatabaseURL is not used.
func In(ctx context.Context, tx pgx.Tx, config Config) (*Report, error) {
	began := time.Now()
	r := &run{Config: config, tx: tx, report: new(Report)}
	if err := r.all(ctx); err != nil {
		return nil, err
	}
	r.report.Took = time.Since(began)
	return r.report, nil
}

func (r *run) all(ctx context.Context) error {
	if err := r.readRetention(ctx); err != nil {
		return err
	}
	for _, rule := range rules {
		if err := r.ask(ctx, rule); err != nil {
			return fmt.Errorf("check %q: %w", rule.name, err)
		}
	}
	if err := r.checkDeliveries(ctx); err != nil {
		return fmt.Errorf("check deliveries: %w", err)
	}
	if err := r.checkLog(ctx); err != nil {
		return fmt.Errorf("check log: %w", err)
	}
	return nil
}

// readRetention reads from which day on attempts and events are kept: their oldest partitions.
func (r *run) readRetention(ctx context.Context) error {
	const query = `
select coalesce(min(to_date(right(c.relname, 8), 'YYYYMMDD')) filter (where c.relname ~ '^attempts_\d{8}$'), 'epoch')::timestamptz,
  coalesce(min(to_date(right(c.relname, 8), 'YYYYMMDD')) filter (where c.relname ~ '^events_\d{8}$'), 'epoch')::timestamptz
from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent in ('attempts'::regclass, 'events'::regclass) and c.relname ~ '_\d{8}$'`
	if err := r.tx.QueryRow(ctx, query).Scan(&r.ledgerFrom, &r.eventsFrom); err != nil {
		return fmt.Errorf("read partitions: %w", err)
	}
	return nil
}

// newCheck adds a check to the report.
func (r *run) newCheck(name string) *Check {
	check := &Check{Name: name}
	r.report.Checks = append(r.report.Checks, check)
	return check
}
