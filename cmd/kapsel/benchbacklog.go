package main

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/bench"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// Nobody listens there (RFC 1078, which nobody speaks), and an unprivileged process cannot begin to.
	refusingURL = "http://127.0.0.1:1/deliveries"
	// Longer than any timeout of a destination.
	hangingDelay = time.Hour
	// Events of one statement: intake's own has up to 500. A payload is sent as often as it is stored.
	backlogBatch = 1000
)

// deadWay is where a backlog is queued.
type deadWay struct {
	endpointID, destinationID uuid.UUID
	payloadBytes              int
	line                      *progressLine
}

// addDead makes an endpoint whose destination is dead, as the flags say. stop ends what was started for it.
func (b *benchFlags) addDead(ctx context.Context, s *benchServer) (stop func(), err error) {
	url, stop := refusingURL, func() {}
	if b.dead == deadHangs {
		hanging, stopHanging, err := startSink(ctx, hangingDelay)
		if err != nil {
			return nil, err
		}
		url, stop = hanging.URL(), stopHanging
	}
	// Without deduplication an event is its own row and its delivery's, and nothing else is to be made for it.
	way, err := createBenchWay(ctx, s.client, &kapselv1.Destination{DisplayName: "Dead", Url: url}, kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_NONE)
	if err != nil {
		stop()
		return nil, err
	}
	if err := s.queueBehind(way, b.config.PayloadBytes, b.line); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// queueBehind says where Queue puts events, and how large they are.
func (s *benchServer) queueBehind(way benchWay, payloadBytes int, line *progressLine) (err error) {
	s.dead.payloadBytes, s.dead.line = payloadBytes, line
	if s.dead.endpointID, err = id.Endpoint.Parse(way.endpoint); err != nil {
		return fmt.Errorf("read endpoint's id: %w", err)
	}
	if s.dead.destinationID, err = id.Destination.Parse(way.destination); err != nil {
		return fmt.Errorf("read destination's id: %w", err)
	}
	return nil
}

// Queue writes events with a delivery each by intake's own statement, told that this node had no room for them: so the
// rows are those that intake writes, without the time that as many requests would take. The server is at work meanwhile,
// and finds the destination dead.
func (s *benchServer) Queue(ctx context.Context, n int) error {
	started := time.Now()
	batch := s.newBacklogBatch()
	for queued := 0; queued < n; queued += batch.size {
		s.dead.line.stage("deliveries queued", int64(queued), int64(n))
		batch.renew(min(backlogBatch, n-queued))
		if _, err := s.node.DB().CommitEvents(ctx, s.node.DB().Engine(), batch.params()); err != nil {
			return fmt.Errorf("store %d events of the backlog: %w", batch.size, err)
		}
	}
	s.dead.line.note("queued %d deliveries behind a dead destination in %.1f s", n, time.Since(started).Seconds())
	return nil
}

// Settle makes a checkpoint.
func (s *benchServer) Settle(ctx context.Context) error {
	return s.asOwner(ctx, func(db *pgx.Conn) error {
		_, err := db.Exec(ctx, "checkpoint")
		return err
	})
}

// Queued counts the rows that the dead destination has in the queue.
func (s *benchServer) Queued(ctx context.Context) (n int, err error) {
	err = s.asOwner(ctx, func(db *pgx.Conn) error {
		return db.QueryRow(ctx, "select count(*) from delivery_queue where destination_id = $1", s.dead.destinationID).Scan(&n)
	})
	return n, err
}

// Connections counts the connections of the node, by the name that they give themselves.
func (s *benchServer) Connections(ctx context.Context) (n int, err error) {
	err = s.asOwner(ctx, func(db *pgx.Conn) error {
		return db.QueryRow(ctx, "select count(*) from pg_stat_activity where application_name like 'kapsel%'").Scan(&n)
	})
	return n, err
}

// asOwner looks at the database past the node's pools, which are part of what is measured.
func (s *benchServer) asOwner(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, s.databaseURL)
	if err != nil {
		return fmt.Errorf("connect to the bench's database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn)
}

// backlogRows is one batch. Each event is new, all else is the same for all.
type backlogRows struct {
	size int
	p    store.CommitEventsParams
}

func (s *benchServer) newBacklogBatch() *backlogRows {
	const n = backlogBatch
	const headers = "Accept: */*\r\nContent-Type: application/json\r\nUser-Agent: kapsel-bench\r\nX-Github-Event: push\r\n"
	return &backlogRows{p: store.CommitEventsParams{
		EventIds: make([]uuid.UUID, n), DeliveryIds: make([]uuid.UUID, n), ReceivedAts: make([]time.Time, n),
		TenantIds: repeated(s.tenantID, n), EndpointIds: repeated(s.dead.endpointID, n),
		Bodies: repeated(bench.Payload(s.dead.payloadBytes), n), Headers: repeated([]byte(headers), n),
		ContentTypes: repeated("application/json", n), EventTypes: repeated("push", n), DedupKeys: repeated("", n),
		KeyHashes: repeated([]byte{}, n), SourceAddresses: repeated("127.0.0.1", n),
		Verifications: repeated(signature.PresetGitHub, n), Defects: repeated("", n),
		DeliveryDestinationIds: repeated(s.dead.destinationID, n), DeliveryLeased: repeated(false, n),
	}}
}

// renew makes it a batch of the first n rows, received now.
func (b *backlogRows) renew(n int) {
	b.size = n
	now := time.Now()
	for i := range n {
		b.p.EventIds[i], b.p.DeliveryIds[i], b.p.ReceivedAts[i] = id.New(), id.New(), now
	}
}

func (b *backlogRows) params() store.CommitEventsParams {
	p, n := b.p, b.size
	p.EventIds, p.TenantIds, p.EndpointIds, p.ReceivedAts = p.EventIds[:n], p.TenantIds[:n], p.EndpointIds[:n], p.ReceivedAts[:n]
	p.Bodies, p.Headers, p.ContentTypes, p.EventTypes = p.Bodies[:n], p.Headers[:n], p.ContentTypes[:n], p.EventTypes[:n]
	p.DedupKeys, p.KeyHashes, p.SourceAddresses = p.DedupKeys[:n], p.KeyHashes[:n], p.SourceAddresses[:n]
	p.Verifications, p.Defects = p.Verifications[:n], p.Defects[:n]
	p.DeliveryIds, p.DeliveryDestinationIds, p.DeliveryLeased = p.DeliveryIds[:n], p.DeliveryDestinationIds[:n], p.DeliveryLeased[:n]
	p.KeyExpiries, p.DeliveryEventIds = p.ReceivedAts, p.EventIds
	p.DeliveryTenantIds, p.DeliveryEndpointIds = p.TenantIds, p.EndpointIds
	return p
}

func repeated[T any](value T, n int) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = value
	}
	return all
}
