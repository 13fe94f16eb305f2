package chaos

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/fsck"
)

// What real traffic leaves passes; each kind of damage to it is found, by the check that is meant to.
func TestFsckFindsEachKindOfDamage(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	node := cluster.Start(t, "a")
	sink := NewSink(t)
	route := node.API().CreateRoute(t, sink.URL)
	posted := Load{
		IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: 700, PerSecond: 700, Conns: 8,
	}.Start(ctx, r).Wait(t)
	if status, answer, err := Post(ctx, http.DefaultClient, node.IngestURL(route), route.Secret, "broken", "push", []byte(`{"broken`)); err != nil || status != http.StatusAccepted {
		t.Fatalf("a malformed payload: status %d, error %v: %s", status, err, answer)
	}
	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	CheckFsck(t, cluster)
	if code := node.Terminate(t, drainPatience); code != 0 {
		t.Fatalf("exit code %d after SIGTERM", code)
	}
	CheckFsck(t, cluster)

	conn, err := pgx.Connect(ctx, cluster.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for name, damage := range map[string]struct{ check, sql string }{
		"a leaf is removed":             {"dense", `delete from attempts where leaf_index = 100`},
		"the first leaves are removed":  {"dense", `delete from attempts where leaf_index < 10`},
		"the last leaf is removed":      {"dense", `delete from attempts where leaf_index = (select max(leaf_index) from attempts)`},
		"a leaf is there twice":         {"dense", `insert into attempts select log_id, leaf_index, recorded_at - interval '1 us', tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis, response_excerpt from attempts where leaf_index = 7`},
		"a leaf was not counted":        {"dense", `update logs set next_index = next_index - 1`},
		"a leaf's bytes are removed":    {"erasure names", `update attempts set leaf = '', diagnosis = '', response_excerpt = '' where leaf_index = 5`},
		"a leaf's bytes are changed":    {"tiles", `update attempts set leaf = set_byte(leaf, 3, get_byte(leaf, 3) # 1) where leaf_index = 5`},
		"a leaf's column is changed":    {"says what", `update attempts set outcome = 2 where leaf_index = 5`},
		"a leaf's event is changed":     {"says what", `update attempts set event_id = delivery_id where leaf_index = 6`},
		"an attempt is another's":       {"numbered", `update attempts a set leaf = b.leaf, delivery_id = b.delivery_id from attempts b where a.leaf_index = 8 and b.leaf_index = 9`},
		"a tile is changed":             {"tiles", `update tiles set hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1) where level = 0 and tile_index = 1`},
		"a tile is removed":             {"tiles", `delete from tiles where level = 1`},
		"a head's root is changed":      {"heads", `update tree_heads set root_hash = sha256('x') where tree_size = (select max(tree_size) from tree_heads)`},
		"a head's note is changed":      {"heads", `update tree_heads set note = replace(note, 'a', 'b') where tree_size > 0`},
		"the last head is removed":      {"heads", `delete from tree_heads where tree_size = (select max(tree_size) from tree_heads)`},
		"the log's key is replaced":     {"heads", `update log_keys set public_key = sha256('x')`},
		"an event is removed":           {"have their event", `delete from events where event_id = (select event_id from dedup_keys limit 1)`},
		"a queue row without its event": {"queue rows", `insert into delivery_queue select tenant_id, gen_random_uuid(), ('ffffffff-' || substr(gen_random_uuid()::text, 10))::uuid, endpoint_id, null, 0, now() from events limit 1`},
		"a delivered one is queued":     {"just one", `insert into delivery_queue select a.tenant_id, a.delivery_id, a.event_id, e.endpoint_id, null, 1, now() from attempts a join events e using (event_id) where leaf_index = 3`},
		"one is delivered twice":        {"just one", `update attempts a set leaf = b.leaf, delivery_id = b.delivery_id from attempts b where a.leaf_index = 8 and b.leaf_index = 9`},
		"a dead one is queued":          {"two of", `insert into delivery_queue select tenant_id, dead_letter_id, event_id, endpoint_id, null, 0, now() from dead_letters`},
		"a dead one is cancelled":       {"two of", `insert into cancellations select tenant_id, dead_letter_id, event_id, gen_random_uuid(), 0, 'x' from dead_letters`},
		"a lease of an unknown node":    {"leases", `insert into delivery_queue select tenant_id, gen_random_uuid(), event_id, endpoint_id, null, 0, now() + interval '1 minute', gen_random_uuid() from events limit 1`},
		"a dead letter is removed":      {"says what", `delete from dead_letters`},
		"a defect without dead letter":  {"have their deliveries", `delete from dead_letters; delete from attempts where outcome = 0`},
		"a dead letter's leaf is wrong": {"points at", `update dead_letters set leaf_index = 0`},
		"a dead letter counts wrongly":  {"says what", `update dead_letters set attempts = 3`},
		"a delivery was lost":           {"have their deliveries", `update destinations set created_at = now() - interval '1 day', updated_at = now() - interval '1 day'; delete from attempts where leaf_index = 50`},
		"a key made two events":         {"one event", `insert into events select tenant_id, gen_random_uuid(), endpoint_id, received_at + interval '1 s', body, headers, content_type, event_type, dedup_key, source_address, verification, defect from events where dedup_key <> '' limit 1`},
		"a payload is changed":          {"payloads", `update events set body = body || 'x' where event_id = (select event_id from attempts where leaf_index = 11)`},
	} {
		t.Run(name, func(t *testing.T) {
			report := examine(ctx, t, conn, damage.sql)
			var failed []string
			for _, check := range report.Checks {
				if check.Violations > 0 {
					failed = append(failed, check.Name)
				}
			}
			if !strings.Contains(strings.Join(failed, "; "), damage.check) {
				t.Errorf("found by %q: want a check with %q among them", failed, damage.check)
			}
		})
	}
	if code, _, stderr := Run(t, "fsck", "--database-url", "postgres:///nowhere?host=/nowhere"); code != 2 || stderr == "" {
		t.Errorf("fsck of no database: exit code %d and %q: want 2 and a reason", code, stderr)
	}
}

// examine damages the database in a transaction, checks that, and takes it back.
func examine(ctx context.Context, t *testing.T, conn *pgx.Conn, damage string) *fsck.Report {
	t.Helper()
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	// The superuser's damage: no trigger and no foreign key stops it.
	if _, err := tx.Conn().PgConn().Exec(ctx, "set local session_replication_role = replica; "+damage).ReadAll(); err != nil {
		t.Fatalf("%s: %v", damage, err)
	}
	report, err := fsck.In(ctx, tx, fsck.Config{LogID: 1, Deep: true})
	if err != nil {
		t.Fatalf("fsck: %v", err)
	}
	return report
}

// CheckFsck fails unless `kapsel fsck --deep` finds nothing wrong with the database.
func CheckFsck(t testing.TB, cluster *Cluster) {
	t.Helper()
	code, stdout, stderr := Run(t, "fsck", "--deep", "--json", "--database-url", cluster.DatabaseURL())
	var report fsck.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 0 || len(report.Checks) == 0 {
		t.Errorf("kapsel fsck: exit code %d (%v)\n%s%s", code, err, stdout, stderr)
	}
}
