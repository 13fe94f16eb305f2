package node

import (
	"context"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/reseal"
	"github.com/kapsel-dev/kapsel/internal/secret"
)

// Two nodes deliver through a whole rotation, and no secret is left under the old key.
func TestRotationOfTheKeysetUnderRunningNodes(t *testing.T) {
	r := newRig(t)
	nodes := []*Node{r.start(r.config()), r.start(r.config())}
	r.configure(10 * time.Second)
	r.refresh(nodes...)
	path := filepath.Join(r.state, "secrets.keyset")
	deliver := func(step string) {
		t.Helper()
		for i, n := range nodes {
			key := step + string(rune('a'+i))
			if status, _ := r.post(n, key, []byte(`{"step":"`+key+`"}`)); status != http.StatusAccepted {
				t.Fatalf("%s: %d", step, status)
			}
		}
	}
	deliver("before")
	old := nodes[0].Keyring().Primary()
	if _, err := secret.Prepare(path, nil); err != nil {
		t.Fatal(err)
	}
	deliver("prepared")
	fresh, err := secret.Promote(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := secret.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.exec(`insert into destination_secrets (tenant_id, destination_id, secret_id, ciphertext, expires_at)
		select tenant_id, destination_id, gen_random_uuid(), '\x00000000ff', now() - interval '1 day' from destination_secrets`) // opens with no key
	result, err := reseal.Run(context.Background(), nodes[0].DB(), keys, 1)
	if err != nil || result.Resealed != 1 || result.Unreadable != 1 {
		t.Fatalf("resealed: %+v, %v", result, err)
	}
	r.refresh(nodes...)
	deliver("resealed")
	if n := r.count(`select count(*) from destination_secrets where substring(ciphertext from 5 for 5) = $1`, secret.KeyPrefix(old)); n != 0 {
		t.Errorf("%d secrets are under the old key", n)
	}
	if n := r.count(`select count(*) from destination_secrets where substring(ciphertext from 5 for 5) = $1`, secret.KeyPrefix(fresh)); n != 1 {
		t.Errorf("%d secrets are under the new key", n)
	}
	if _, err := secret.Prune(path, nil, nil); err != nil {
		t.Fatal(err)
	}
	r.refresh(nodes...)
	deliver("pruned")
	eventually(t, "all are delivered", func() bool { return r.count(`select count(*) from attempts where outcome = 1`) == 8 })
}
