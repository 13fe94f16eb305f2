package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrPooler: a connection pooler stands between this node and PostgreSQL that was not announced, or that lends sessions out a
// transaction at a time. What a session is set to, the role above all, would end up in other sessions or be dropped, and
// row-level security would hold for nobody.
var ErrPooler = errors.New("a connection pooler stands between Kapsel and PostgreSQL, which would break roles and LISTEN: " +
	"give --database-url PostgreSQL's own address (a node keeps at most 19 connections), or let the pooler pool by session and add pooler=session to the URL")

// poolerParameter in a database URL says that a pooler stands before PostgreSQL, and how it pools: pooler=session.
const poolerParameter = "pooler"

// pooledProbes is how often a session is looked at to see whether it stays the same one.
const pooledProbes = 20

// prepareSession has each new connection begin with settings, the role among them, and returns what is to be done after each
// connect. Settings go with the startup message, which poolers do not pass on: behind one that pools by session they are set
// after it instead.
func prepareSession(config *pgx.ConnConfig, settings map[string]string) (func(context.Context, *pgx.Conn) error, error) {
	config.DialFunc = dial
	pooler, announced := config.RuntimeParams[poolerParameter]
	delete(config.RuntimeParams, poolerParameter)
	switch {
	case !announced:
		maps.Copy(config.RuntimeParams, settings)
		return func(ctx context.Context, conn *pgx.Conn) error { return checkDirect(ctx, conn, settings["role"]) }, nil
	case pooler == "session":
		return func(ctx context.Context, conn *pgx.Conn) error { return setUp(ctx, conn, settings) }, nil
	default:
		return nil, fmt.Errorf("%s=%s in the database URL: want %s=session, the only way of pooling that keeps roles apart", poolerParameter, pooler, poolerParameter)
	}
}

// checkDirect fails unless a connection is a session of PostgreSQL's own, in the role that it was opened for, if any. A pooler
// makes up the process id that it tells its clients.
func checkDirect(ctx context.Context, conn *pgx.Conn, role string) error {
	current, pid, err := who(ctx, conn)
	switch {
	case err != nil:
		return err
	case pid != conn.PgConn().PID():
		return ErrPooler
	case role != "" && current != role:
		return fmt.Errorf("the session is one of %s: want %s; is there something between Kapsel and PostgreSQL?", current, role)
	}
	return nil
}

func who(ctx context.Context, conn *pgx.Conn) (user string, pid uint32, err error) {
	row := conn.QueryRow(ctx, "select current_user::text, pg_backend_pid()", pgx.QueryExecModeSimpleProtocol)
	if err := row.Scan(&user, &pid); err != nil {
		return "", 0, fmt.Errorf("check session: %w", err)
	}
	return user, pid, nil
}

// setUp sets up a session behind a pooler. It stays this client's until it is closed, and the pooler resets it then
// (server_reset_query, DISCARD ALL by default).
func setUp(ctx context.Context, conn *pgx.Conn, settings map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if _, err := conn.Exec(ctx, "select set_config($1, $2, false)", pgx.QueryExecModeSimpleProtocol, name, settings[name]); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// checkPooling fails when the pooler that a database URL announces does not pool by session. Two connections look at their
// sessions many times before anything is set in one: each must keep its own. Nothing is checked when none is announced.
func checkPooling(ctx context.Context, url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("read database URL: %w", err)
	}
	if _, announced := config.RuntimeParams[poolerParameter]; !announced {
		return nil
	}
	delete(config.RuntimeParams, poolerParameter)
	config.ConnectTimeout = connectTimeout
	var conns [2]*pgx.Conn
	var pids [2]uint32
	for i := range conns {
		if conns[i], err = pgx.ConnectConfig(ctx, config); err != nil {
			return fmt.Errorf("connect to database: %w", err)
		}
		defer conns[i].Close(context.WithoutCancel(ctx))
	}
	for probe := range pooledProbes {
		for i, conn := range conns {
			_, pid, err := who(ctx, conn)
			if err != nil {
				return err
			}
			if probe == 0 {
				pids[i] = pid
			}
			if pid != pids[i] || pids[0] == pids[1] {
				return ErrPooler
			}
		}
	}
	return nil
}

// explainConnect names the pooler where it is one that refused the connection. PgBouncer knows a few startup parameters only.
func explainConnect(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && strings.Contains(refused.Message, "unsupported startup parameter") {
		return errors.Join(ErrPooler, err)
	}
	return err
}
