// Package store is the way into PostgreSQL: sqlc's generated queries (*.sql.go), the migrations, and two doors.
//
// The engine's door (DB.Engine) is for intake, delivery, the recorder and the sealer: it runs as role kapsel_engine, which
// has its own row-level security policies. The requests' door (Requests) is all that package server gets to hold. Its
// AsTenant is a transaction as kapsel_tenant that is bound to one tenant, so that a query that forgets its WHERE still sees
// no other tenant's row.
package store

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	engineRole   = "kapsel_engine"
	tenantRole   = "kapsel_tenant"
	operatorRole = "kapsel_operator"

	// Connections a node: 12 for the engine, 6 for requests. With the listener's one a node stays below 20.
	engineConns  = 12
	requestConns = 6

	connectTimeout = 5 * time.Second
)

// DB holds the two pools of a node. Make it with Open.
type DB struct {
	*Requests
	engine *pgxpool.Pool
}

// Requests is the door of API requests. There is no way from it to the engine's.
type Requests struct {
	*Queries
	pool       *pgxpool.Pool
	roundTrips *atomic.Int64
}

// Open connects to the database that url names (a PostgreSQL connection URI or keyword string). The login role must be a
// member of kapsel_engine, kapsel_tenant and kapsel_operator, which Migrate sees to for the role that it runs as.
func Open(ctx context.Context, url string) (*DB, error) {
	if err := checkPooling(ctx, url); err != nil {
		return nil, err
	}
	roundTrips := new(atomic.Int64)
	engine, err := openPool(ctx, url, engineRole, engineConns, roundTrips)
	if err != nil {
		return nil, err
	}
	requests, err := openPool(ctx, url, tenantRole, requestConns, roundTrips)
	if err != nil {
		engine.Close()
		return nil, err
	}
	return &DB{engine: engine, Requests: &Requests{Queries: New(), pool: requests, roundTrips: roundTrips}}, nil
}

func openPool(ctx context.Context, url, role string, maxConns int32, roundTrips *atomic.Int64) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	config.MaxConns = maxConns
	config.ConnConfig.ConnectTimeout = connectTimeout
	session, err := prepareSession(config.ConnConfig, map[string]string{
		"role": role, "application_name": "kapsel",
		// Each statement has an index that serves it. A plan that was made while a table was empty must not read all of it once
		// it is not.
		"enable_seqscan": "off",
		// That setting makes the planner's costs astronomical where a table has no index to use, and PostgreSQL compiles statements
		// (JIT, on by default) that seem to cost so much: tens to hundreds of milliseconds for each look at a table of three rows.
		"jit": "off",
	})
	if err != nil {
		return nil, err
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		registerTypes(conn.TypeMap())
		return session(ctx, conn)
	}
	config.ConnConfig.Tracer = roundTripCounter{roundTrips}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open database pool as %s: %w", role, err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect to database as %s: %w", role, explainConnect(err))
	}
	return pool, nil
}

// Engine is the pool that runs as kapsel_engine.
func (db *DB) Engine() *pgxpool.Pool { return db.engine }

// AsTenant runs f in a transaction that sees and writes the rows of one tenant only.
func (r *Requests) AsTenant(ctx context.Context, tenantID uuid.UUID, f func(tx pgx.Tx) error) error {
	return r.asTenant(ctx, pgx.TxOptions{}, tenantID, f)
}

// ReadAsTenant runs f in a transaction that sees the rows of one tenant only, all as they were at one moment: for what is put together
// from several tables.
func (r *Requests) ReadAsTenant(ctx context.Context, tenantID uuid.UUID, f func(tx pgx.Tx) error) error {
	return r.asTenant(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, tenantID, f)
}

func (r *Requests) asTenant(ctx context.Context, options pgx.TxOptions, tenantID uuid.UUID, f func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, r.pool, options, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select set_config('kapsel.tenant_id', $1, true)", tenantID.String()); err != nil {
			return fmt.Errorf("bind transaction to tenant: %w", err)
		}
		return f(tx)
	})
}

// AsOperator runs f in a transaction that may make and change tenants, and nothing that is a tenant's.
func (r *Requests) AsOperator(ctx context.Context, f func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set local role "+operatorRole); err != nil {
			return fmt.Errorf("begin as operator: %w", err)
		}
		return f(tx)
	})
}

// Public reads what is nobody's: the log's keys, heads and tiles. It is bound to no tenant, and so sees no tenant's row.
func (r *Requests) Public() DBTX { return r.pool }

// Pools tells how each pool of connections is used.
func (db *DB) Pools() map[string]*pgxpool.Stat {
	return map[string]*pgxpool.Stat{"engine": db.engine.Stat(), "requests": db.pool.Stat()}
}

// RoundTrips counts the statements that this node has sent to the database so far.
func (r *Requests) RoundTrips() int64 { return r.roundTrips.Load() }

// Close waits for borrowed connections and closes them all.
func (db *DB) Close() {
	db.pool.Close()
	db.engine.Close()
}

type roundTripCounter struct{ n *atomic.Int64 }

func (c roundTripCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}

func (roundTripCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
