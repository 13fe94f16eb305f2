package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrPooler: a connection pooler stands between this node and PostgreSQL. What a session is set to, the role above all, would
// end up in other sessions or be dropped, and row-level security would hold for nobody.
var ErrPooler = errors.New("a connection pooler stands between Kapsel and PostgreSQL, which would break roles and LISTEN: " +
	"give --database-url PostgreSQL's own address; a node keeps at most 19 connections")

// checkSession fails unless a new connection is a session of PostgreSQL's own, in the role that it was opened for. A pooler
// makes up the process id that it tells its clients.
func checkSession(ctx context.Context, conn *pgx.Conn, role string) error {
	var current string
	var pid uint32
	row := conn.QueryRow(ctx, "select current_user::text, pg_backend_pid()", pgx.QueryExecModeSimpleProtocol)
	if err := row.Scan(&current, &pid); err != nil {
		return fmt.Errorf("check session: %w", err)
	}
	if pid != conn.PgConn().PID() {
		return ErrPooler
	}
	if role != "" && current != role {
		return fmt.Errorf("the session is one of %s: want %s; is there something between Kapsel and PostgreSQL?", current, role)
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
