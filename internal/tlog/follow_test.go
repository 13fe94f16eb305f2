package tlog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// awaitMark waits until a node's high-water file is at a size.
func (r *rig) awaitMark(name, size string) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(filepath.Join(r.dir, name))
		if strings.Contains(string(text), `"size":`+size+`,`) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s has %q, want size %s", name, text, size)
		}
	}
}

// rollBack puts the database back to its first 100 leaves, as a standby that lagged behind has it.
func (r *rig) rollBack() {
	r.t.Helper()
	r.tamper("delete from attempts where leaf_index >= 100")
	r.tamper("delete from tree_heads where tree_size > 100")
	r.tamper(`with gone as (delete from tiles where level > 0 or tile_index > 0)
		update tiles set hashes = substring(hashes for 3200) where level = 0 and tile_index = 0`)
	r.tamper("update log_sealers set tree_size = 100, root_hash = (select root_hash from tree_heads where tree_size = 100), lease_owner = null")
	r.tamper("update logs set next_index = 100")
}

// recordOthers writes leaves that are not those which were signed.
func (r *rig) recordOthers(n int) {
	r.t.Helper()
	r.tamper(`insert into attempts select log_id, leaf_index + (select next_index from logs), recorded_at, tenant_id, gen_random_uuid(), delivery_id, event_id,
		outcome, leaf, diagnosis, response_excerpt from attempts where leaf_index < $1`, n)
	r.tamper("update logs set next_index = next_index + $1", n)
}

// wantRefusal waits until a sealer refuses, and says why.
func (r *rig) wantRefusal(s *Sealer, says string) {
	r.t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Run(r.ctx) }()
	select {
	case err := <-done:
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), says) {
			r.t.Fatalf("got %v, want a refusal that says %q", err, says)
		}
	case <-time.After(20 * time.Second):
		r.t.Fatalf("the sealer goes on: want a refusal that says %q", says)
	}
}

// The database fails over to a standby that has not got the last heads, and the node that signed them is gone. The one that
// stood by has seen them, and does not sign others in their place.
func TestNodeThatStoodByRefusesADatabaseThatLostHeads(t *testing.T) {
	r := newRig(t)
	heads := NewHeads(r.reader)
	share := func(c *Config) { c.Heads = heads }
	leads := r.sealer("mark-leads", share)
	r.record(100, 0)
	r.flush(leads)
	stop := r.run(r.sealer("mark-stands-by", share))
	r.awaitMark("mark-stands-by", "100")
	r.record(200, 0)
	r.flush(leads)
	r.awaitMark("mark-stands-by", "300")
	r.tamper("update log_sealers set lease_expires_at = now() + interval '1 hour'") // no seal before the end
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.rollBack()
	r.wantRefusal(r.sealer("mark-stands-by", share), "a tree of 300 leaves was signed, but the database holds only 100")
	r.recordOthers(100)
	r.recordOthers(100)
	r.wantRefusal(r.sealer("mark-stands-by", share), "a tree of 300 leaves with root")
	r.wantHead(100)
}

// A node that has lost its mark, or is new, has signed on from a database that lost heads. The others do not take that for the log.
func TestNodeThatStandsByRefusesAForkOfAnother(t *testing.T) {
	r := newRig(t)
	signed := r.sealer("mark-signed", nil)
	r.record(100, 0)
	r.flush(signed)
	r.record(50, 0)
	r.flush(signed)
	r.rollBack()
	forks := r.sealer("mark-new", nil)
	r.flush(forks)
	r.tamper("update log_sealers set lease_expires_at = now() + interval '1 hour'")
	r.wantRefusal(r.sealer("mark-signed", nil), "a tree of 150 leaves was signed, but the database holds only 100")
	r.recordOthers(50)
	r.flush(forks)
	r.wantRefusal(r.sealer("mark-signed", nil), "a tree of 150 leaves with root")
	r.recordOthers(50)
	r.flush(forks)
	r.wantRefusal(r.sealer("mark-signed", nil), "a tree of 150 leaves with root")
	r.awaitMark("mark-signed", "150")
}

// Heads that no key of the log has signed, or whose tiles are not there, move no mark.
func TestMarkFollowsOnlyWhatIsSignedAndThere(t *testing.T) {
	for name, statement := range map[string]string{
		"note": "update tree_heads set note = (select note from tree_heads where tree_size = 100) where tree_size = 150",
		"root": "update tree_heads set root_hash = sha256('x') where tree_size = 150",
		"tile": "update tiles set hashes = overlay(hashes placing '\\x00'::bytea from 4000 for 1)",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			leads, follows := r.sealer("mark", nil), r.sealer("mark-follows", nil)
			r.record(100, 0)
			r.flush(leads)
			if err := follows.follow(r.ctx); err != nil {
				t.Fatal(err)
			}
			r.record(50, 0)
			r.flush(leads)
			r.tamper(statement)
			if err := follows.follow(r.ctx); !errors.Is(err, ErrCorrupt) {
				t.Errorf("got %v, want ErrCorrupt", err)
			}
			r.awaitMark("mark-follows", "100")
		})
	}
}
