package node

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// A sealer that refuses is seen by whoever runs the node, wherever he looks; webhooks are taken on, and nothing is signed.
func TestRefusalToSealIsAnAlarm(t *testing.T) {
	r, n := one(t, func(c *Config) { c.AdminListen = "127.0.0.1:0" })
	read := func(url string) (int, string) {
		response, err := http.Get(url + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	if status, text := read(n.AdminURL()); status != http.StatusOK || text != "ready\n" || scrape(t, n)["kapsel_sealer_refused"] != 0 {
		t.Fatalf("before: %d %q", status, text)
	}
	r.exec("update log_keys set retired_at = now() - interval '1 hour'")
	r.load(30, 0, func(int) *Node { return n })
	eventually(t, "the sealer refuses", func() bool { return scrape(t, n)["kapsel_sealer_refused"] == 1 })
	if status, text := read(n.AdminURL()); status != http.StatusOK || !strings.Contains(text, "operator must look") || !strings.Contains(text, "refused to sign") {
		t.Errorf("admin: %d %q", status, text)
	}
	if status, text := read(n.URL()); status != http.StatusOK || text != "ready, and an operator must look\n" {
		t.Errorf("public: %d %q", status, text)
	}
	eventually(t, "the operator's audit log says so", func() bool {
		return r.count("select count(*) from audit_entries where tenant_id = '"+tenant.OperatorID.String()+"' and action = 'SealingRefused' and actor = 'system' and detail like 'refused to sign%'") == 1
	})
	if got := r.load(5, 0, func(int) *Node { return n }); len(got) != 5 {
		t.Errorf("%d of 5 webhooks were taken afterwards", len(got))
	}
	if err := n.Stop(context.Background()); !errors.Is(err, tlog.ErrRefused) {
		t.Errorf("it stops with %v, and so with exit code 0", err)
	}
}
