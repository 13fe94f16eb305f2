package chaos

import (
	"context"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A managed PostgreSQL gives no superuser: a login role that may create roles and owns its database is enough, from the
// first migration to a delivered webhook.
func TestServeNeedsNoSuperuser(t *testing.T) {
	t.Parallel()
	ctx, r := scenario(t)
	cluster := startCluster(t, r)
	cluster.databaseURL = createOwner(ctx, t, cluster.Postgres.ConnString("postgres"))
	cluster.prepare(t)
	node := cluster.Start(t, "a")
	sink := NewSink(t)
	route := node.API().CreateRoute(t, sink.URL)
	posted := Load{
		IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: 20, PerSecond: 1000, Conns: 4,
	}.Start(ctx, r).Wait(t)
	sink.AwaitAll(t, posted, settlePatience)
	node.Log(t).AwaitLeaves(t, int64(len(posted)), startPatience)
}

// createOwner makes a role without superuser and a database of its own, and returns that one's URL.
func createOwner(ctx context.Context, t *testing.T, superuserURL string) string {
	t.Helper()
	conn, err := pgx.Connect(ctx, superuserURL)
	if err != nil {
		t.Fatalf("connect to the database: %v", err)
	}
	defer conn.Close(ctx)
	for _, statement := range []string{`create role owner login createrole`, `create database owned owner owner`} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	u, err := url.Parse(superuserURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User, u.Path = url.User("owner"), "/owned"
	return u.String()
}
