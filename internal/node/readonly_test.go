package node

import (
	"net/http"
	"testing"
	"time"
)

// A provider sets a database so when its disk is nearly full, and a node can find itself on a standby after a failover.
func TestANodeIsNotReadyWhileTheDatabaseTakesNoWrites(t *testing.T) {
	r, n := one(t, func(c *Config) { c.Hold = 100 * time.Millisecond })
	setReadOnly := func(on string) {
		t.Helper()
		r.exec(`begin read write; do $$ begin execute format('alter database %I set default_transaction_read_only = ` + on + `', current_database()); end $$; commit;
			select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`)
		r.owner.Reset() // its other connections are gone
	}
	if err := n.ready(); err != nil {
		t.Fatal(err)
	}
	setReadOnly("on")
	eventually(t, "it is not ready", func() bool { return n.ready() == errReadOnly })
	if status, header := r.post(n, "key", []byte("{}")); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("a webhook is answered %d, Retry-After %q: want 503 and when to come again", status, header.Get("Retry-After"))
	}
	setReadOnly("off")
	eventually(t, "it is ready again", func() bool { return n.ready() == nil })
	eventually(t, "webhooks are taken", func() bool {
		status, _ := r.post(n, "key", []byte("{}"))
		return status == http.StatusAccepted
	})
}
