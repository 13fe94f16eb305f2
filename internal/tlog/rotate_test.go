package tlog

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

func keyIn(t *testing.T, dir, name string) *Key {
	t.Helper()
	key, err := OpenKeyFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (r *rig) keysIn(dir string) *Keys {
	r.t.Helper()
	keys, err := OpenKeys(r.ctx, dir, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return keys
}

func signedBy(head Head, keys ...*Key) (by []bool) {
	for _, key := range keys {
		_, _, err := checkpoint.Open(head.Note, testOrigin, key.Public())
		by = append(by, err == nil)
	}
	return by
}

// A key is replaced while two nodes seal. One of them gets the new key late, and leaves sealing to the other meanwhile.
func TestKeyIsRotatedWithAnOverlap(t *testing.T) {
	r := newRig(t)
	old, next := r.key(), keyIn(t, r.dir, "log.next.key")
	late := t.TempDir()
	copyFile(t, filepath.Join(r.dir, "log.key"), filepath.Join(late, "log.key"))
	one := r.sealer("mark-one", func(c *Config) { c.Keys = r.keysIn(r.dir) })
	two := r.sealer("mark-two", func(c *Config) { c.Keys = r.keysIn(late) })
	r.record(10, 0)
	r.flush(two)
	if by := signedBy(r.latest(), old, next); !slices.Equal(by, []bool{true, false}) {
		t.Fatalf("before: signed by old, new: %v", by)
	}

	index, err := Rotate(r.ctx, r.pool, testLogID, testOrigin, r.keysIn(r.dir), next, time.Hour)
	if err != nil || index != 10 {
		t.Fatalf("leaf %d, %v", index, err)
	}
	if _, err := Rotate(r.ctx, r.pool, testLogID, testOrigin, r.keysIn(r.dir), keyIn(t, r.dir, "log.third.key"), time.Hour); err == nil {
		t.Error("a second rotation while the first is under way")
	}
	two.renewed = time.Time{} // it is time to renew the lease
	if err := two.Flush(r.ctx); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("the node without the new key: got %v, want ErrNotLeader", err)
	}
	r.flush(one) // which got the lease at once
	head := r.latest()
	if by := signedBy(head, old, next); head.Size != 11 || !slices.Equal(by, []bool{true, true}) {
		t.Fatalf("during the overlap: %d leaves, signed by old, new: %v", head.Size, by)
	}
	r.checkRotationLeaf(10, old, next)

	copyFile(t, filepath.Join(r.dir, "log.next.key"), filepath.Join(late, "log.next.key"))
	if err := one.finish(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.record(5, 0)
	r.flush(two) // without a restart
	if by := signedBy(r.latest(), old, next); !slices.Equal(by, []bool{true, true}) {
		t.Fatalf("the node that got its key late: signed by old, new: %v", by)
	}

	r.tamper("update log_keys set retired_at = now() - interval '1 second' where retired_at is not null")
	r.record(5, 0)
	r.flush(two)
	if by := signedBy(r.latest(), old, next); !slices.Equal(by, []bool{false, true}) {
		t.Fatalf("after the overlap: signed by old, new: %v", by)
	}
	// Nodes that begin now find all as it should be, whatever keys they have beside the one in force.
	if err := two.finish(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.record(5, 0)
	r.flush(r.sealer("mark-one", func(c *Config) { c.Keys = NewKeys(next) }))
	if got := r.latest().Size; got != 26 {
		t.Errorf("%d leaves", got)
	}
	// The old mark still holds under the new key.
	r.tamper("update log_sealers set lease_owner = null")
	if err := EnsureLog(r.ctx, r.pool, testLogID, testOrigin, keyIn(t, r.dir, "log.other.key")); err != nil {
		t.Fatal(err)
	}
	if keys, err := r.reader.Keys(r.ctx); err != nil || len(keys) != 2 {
		t.Errorf("a node with another key has added it: %d keys, %v", len(keys), err)
	}
}

func (r *rig) latest() Head {
	r.t.Helper()
	head, err := r.reader.Head(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return head
}

// checkRotationLeaf follows from the old key to the new one as a verifier does, by a leaf that is proved to be in the log.
func (r *rig) checkRotationLeaf(index int64, old, next *Key) {
	r.t.Helper()
	rows, err := r.reader.Rotations(r.ctx)
	if err != nil || len(rows) != 1 || rows[0].LeafIndex != index {
		r.t.Fatalf("rotations %v, %v", rows, err)
	}
	head := r.latest()
	path, err := r.reader.InclusionProof(r.ctx, index, head.Size)
	if err == nil {
		err = merkle.VerifyInclusion(index, head.Size, merkle.LeafHash(rows[0].Leaf), path, head.Root)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	oldText, _ := old.VerifierKey(testOrigin)
	nextText, _ := next.VerifierKey(testOrigin)
	followed, err := verify.FollowRotations([]string{oldText}, [][]byte{rows[0].Leaf})
	if err != nil || !slices.Equal(followed, []string{oldText, nextText}) {
		r.t.Errorf("followed to %v, %v", followed, err)
	}
	data, err := r.pack(index, rows[0].Leaf, head)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, key := range followed {
		if report, err := verify.Verify(data, verify.Options{TrustedKeys: []string{key}}); err != nil || !report.Full {
			r.t.Errorf("a package of the leaf: %v", err)
		}
	}
	if _, err := r.pool.Exec(r.ctx, "delete from log_key_rotations"); err == nil {
		r.t.Error("a rotation was removed")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A package has 64 keys at most, witnesses' included. A log may have had more.
func TestPackagesOfALogThatHadManyKeysVerify(t *testing.T) {
	r := newRig(t)
	r.record(10, 0)
	r.flush(r.sealer("mark", nil))
	r.tamper(`insert into log_keys (log_id, public_key, created_at, retired_at)
		select log_id, sha256(n::text::bytea), now() - interval '1 day' * n, now() - interval '1 hour' from log_keys, generate_series(1, 100) n`)
	data, err := r.pack(3, testLeaf(3), r.latest())
	if err != nil {
		t.Fatal(err)
	}
	key, err := r.key().VerifierKey(testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	report, err := verify.Verify(data, verify.Options{TrustedKeys: []string{key}})
	if err != nil || !report.Full || !slices.Equal(report.Package.PublicKeys, []string{key}) {
		t.Errorf("%v, %+v", err, report)
	}
}

func TestWrongRotationsAreRefused(t *testing.T) {
	r := newRig(t)
	next := keyIn(t, t.TempDir(), "next.key")
	for name, test := range map[string]struct {
		keys    *Keys
		next    *Key
		overlap time.Duration
		says    string
	}{
		"the same key":     {NewKeys(r.key()), r.key(), time.Hour, "make a new one"},
		"without the old":  {NewKeys(next), next, time.Hour, "lacks a key"},
		"negative overlap": {NewKeys(r.key()), next, -time.Second, "overlap"},
		"endless overlap":  {NewKeys(r.key()), next, MaxKeyOverlap + 1, "overlap"},
	} {
		if _, err := Rotate(r.ctx, r.pool, testLogID, testOrigin, test.keys, test.next, test.overlap); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, want an error that says %q", name, err, test.says)
		}
	}
	var leaves, keys int
	if err := r.pool.QueryRow(r.ctx, "select (select next_index from logs), (select count(*) from log_keys)").Scan(&leaves, &keys); err != nil || leaves != 0 || keys != 1 {
		t.Errorf("%d leaves and %d keys, %v", leaves, keys, err)
	}
}
