package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/bench"
)

// addFlood makes a second tenant with a limit, and a way of its own for what it sends. stop ends its sink.
func (b *benchFlags) addFlood(ctx context.Context, s *benchServer) (flood bench.Flood, stop func(), err error) {
	tenantID, err := createTenant(ctx, s.node.DB(), "Bench flood")
	if err != nil {
		return flood, nil, err
	}
	key, err := createAPIKey(ctx, s.node.DB(), tenantID)
	if err != nil {
		return flood, nil, err
	}
	err = s.asOwner(ctx, func(db *pgx.Conn) error {
		_, err := db.Exec(ctx, "update tenants set ingest_per_second = $1 where tenant_id = $2", b.limit, tenantID)
		return err
	})
	if err != nil {
		return flood, nil, fmt.Errorf("limit the tenant: %w", err)
	}
	sink, stop, err := startSink(ctx, 0)
	if err != nil {
		return flood, nil, err
	}
	way, err := createBenchWay(ctx, newClient(s.node.URL(), key), &kapselv1.Destination{DisplayName: "Flood", Url: sink.URL()},
		kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_AUTO)
	if err != nil {
		stop()
		return flood, nil, err
	}
	return bench.Flood{IngestURL: way.ingestURL(s.node.URL()), Secret: way.secret, Limit: b.limit, Sink: sink}, stop, nil
}
