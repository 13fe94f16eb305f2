package tlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

// Restart is how a log goes on whose database cannot be brought up to what was signed: under another name and another key,
// which makes it another log to everyone who verifies. Its leaves are those that the database has.
type Restart struct {
	LogID  int32
	Origin string // the new name
	Key    *Key   // the new key
	// HighWater of the old log, which says that it cannot go on.
	HighWater *HighWater
	// Keep is given the evidence before anything is changed for good. Its error ends the restart.
	Keep func(Evidence) error
}

// Evidence is what is known of a log that cannot go on. It goes into a file, since the database forgets it.
type Evidence struct {
	Origin      string    `json:"origin"`
	Keys        []string  `json:"keys"` // verifier keys, the oldest first
	SignedSize  int64     `json:"signed_size"`
	SignedRoot  []byte    `json:"signed_root"` // base64
	Leaves      int64     `json:"database_leaves"`
	SealedSize  int64     `json:"database_sealed_size"`
	LatestHead  string    `json:"database_latest_head"` // a signed note
	Rotations   [][]byte  `json:"key_rotations"`        // the leaves of hand-overs between keys, base64
	NewOrigin   string    `json:"new_origin"`
	NewKey      string    `json:"new_key"`
	RestartedAt time.Time `json:"restarted_at"`
}

// ErrNothingToRestart refuses to give a log up that can go on.
var ErrNothingToRestart = errors.New("this log can go on")

// Run does it, in one transaction of the tables' owner, whom tx must be. No node may run meanwhile.
func (r Restart) Run(ctx context.Context, tx pgx.Tx) error {
	if err := checkpoint.CheckOrigin(r.Origin); err != nil {
		return err
	}
	queries := store.New()
	alive, err := queries.LockLogForRestart(ctx, tx, r.LogID)
	if err != nil {
		return fmt.Errorf("lock log %d: %w", r.LogID, err)
	}
	if alive > 0 {
		return fmt.Errorf("%d nodes are running, or were a moment ago: stop all of them and wait for ten seconds", alive)
	}
	evidence, sealed, err := r.look(ctx, tx)
	if err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Second)
	grown := checkpoint.Checkpoint{Origin: r.Origin, Size: sealed.Size, Root: sealed.Root}
	note, err := checkpoint.Sign(grown, now, r.Key.Signer())
	if err != nil {
		return err
	}
	evidence.NewOrigin, evidence.RestartedAt = r.Origin, now
	if evidence.NewKey, err = r.Key.VerifierKey(r.Origin); err != nil {
		return err
	}
	if err := r.Keep(evidence); err != nil {
		return fmt.Errorf("keep the evidence: %w", err)
	}
	return r.rename(ctx, tx, grown, now, note)
}

// look gathers what is known of the old log, and refuses if that can go on.
func (r Restart) look(ctx context.Context, tx pgx.Tx) (e Evidence, sealed checkpoint.Checkpoint, err error) {
	queries, tiles := store.New(), tileTable{queries: store.New(), db: tx, logID: r.LogID}
	mark, ok := r.HighWater.Mark()
	if !ok {
		return e, sealed, fmt.Errorf("%w: this state directory has no high-water mark, so nothing says otherwise", ErrNothingToRestart)
	}
	log, err := queries.GetLog(ctx, tx, r.LogID)
	if err != nil {
		return e, sealed, fmt.Errorf("read log: %w", err)
	}
	if log.Origin == r.Origin {
		return e, sealed, fmt.Errorf("the log is called %q already: a new log needs another name", r.Origin)
	}
	row, err := queries.LatestTreeHead(ctx, tx, r.LogID)
	if err != nil {
		return e, sealed, fmt.Errorf("read latest tree head: %w", err)
	}
	head, err := newHead(row.TreeSize, row.RootHash, row.SignedAt, row.Note)
	if err != nil {
		return e, sealed, err
	}
	sealed = head.checkpoint(log.Origin)
	if err := r.compare(ctx, tx, tiles, mark, sealed, log.NextIndex); err != nil {
		return e, sealed, err
	}
	e = Evidence{Origin: log.Origin, SignedSize: mark.Size, SignedRoot: mark.Root[:], Leaves: log.NextIndex, SealedSize: sealed.Size, LatestHead: row.Note}
	keys, err := queries.ListLogKeys(ctx, tx, r.LogID)
	if err != nil {
		return e, sealed, fmt.Errorf("read keys: %w", err)
	}
	if slices.ContainsFunc(keys, func(row store.ListLogKeysRow) bool { return bytes.Equal(r.Key.public, row.PublicKey) }) {
		return e, sealed, errors.New("the new key is or was a key of the old log: make another one with kapsel keys new-log-key")
	}
	for _, key := range keys {
		text, err := checkpoint.VerifierKey(log.Origin, key.PublicKey)
		if err != nil {
			return e, sealed, err
		}
		e.Keys = append(e.Keys, text)
	}
	rotations, err := queries.ListKeyRotations(ctx, tx, r.LogID)
	for _, rotation := range rotations {
		e.Rotations = append(e.Rotations, rotation.Leaf)
	}
	return e, sealed, err
}

// compare returns nil if the database's log is not what was signed, and ErrNothingToRestart if it is or can become it.
func (r Restart) compare(ctx context.Context, tx pgx.Tx, tiles tileTable, mark, sealed checkpoint.Checkpoint, leaves int64) error {
	tree, err := merkle.ReadTree(ctx, sealed.Size, tiles.read)
	if err != nil {
		return fmt.Errorf("load tree: %w", err)
	}
	if tree.Root() != sealed.Root {
		return fmt.Errorf("%w: the tiles of tree size %d are not those of its head: restore a database that kapsel fsck finds clean", ErrCorrupt, sealed.Size)
	}
	if mark.Size > leaves {
		return nil
	}
	var root merkle.Hash
	if mark.Size <= sealed.Size {
		if root, err = merkle.RootAt(ctx, mark.Size, tiles.read); err != nil {
			return fmt.Errorf("compare with high-water mark: %w", err)
		}
	} else { // a head was signed and never published, perhaps
		for at := sealed.Size; at < mark.Size; at += leafChunk {
			rows, err := store.New().LeafRange(ctx, tx, store.LeafRangeParams{LogID: r.LogID, FirstIndex: at, EndIndex: min(at+leafChunk, mark.Size)})
			if err != nil {
				return fmt.Errorf("read leaves: %w", err)
			}
			hashes := make([]merkle.Hash, len(rows))
			for i, row := range rows {
				hashes[i] = merkle.LeafHash(row.Leaf)
			}
			tree, _ = tree.Grow(hashes)
		}
		root = tree.Root()
	}
	if root == mark.Root {
		return fmt.Errorf("%w: the database has the tree of %d leaves that was signed last. Start the nodes", ErrNothingToRestart, mark.Size)
	}
	return nil
}

// rename gives the log its new name and key, and its first head: the published tree, signed anew.
func (r Restart) rename(ctx context.Context, tx pgx.Tx, head checkpoint.Checkpoint, at time.Time, note string) error {
	queries := store.New()
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"set old hand-overs of keys aside", func() error {
			// They are evidence now, and kept in the file. The trigger keeps everybody else from it.
			_, err := tx.Exec(ctx, `alter table log_key_rotations disable trigger log_key_rotations_append_only`)
			return err
		}},
		{"remove them", func() error { return queries.DropLogRotations(ctx, tx, r.LogID) }},
		{"guard the table again", func() error {
			_, err := tx.Exec(ctx, `alter table log_key_rotations enable trigger log_key_rotations_append_only`)
			return err
		}},
		{"remove old heads", func() error { return queries.DropLogHeads(ctx, tx, r.LogID) }},
		{"remove old keys", func() error { return queries.DropLogKeys(ctx, tx, r.LogID) }},
		{"rename the log", func() error { return queries.RenameLog(ctx, tx, r.Origin, r.LogID) }},
		{"add the new key", func() error { return queries.EnsureLogKey(ctx, tx, r.LogID, r.Key.Public()) }},
		{"publish the first head", func() error {
			return queries.RestartHead(ctx, tx, store.RestartHeadParams{LogID: r.LogID, TreeSize: head.Size, RootHash: head.Root[:], SignedAt: at, Note: note})
		}},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("restart log %d: %s: %w", r.LogID, step.what, err)
		}
	}
	return nil
}

// SetAside renames the mark of a log that was given up, so that the new log gets one of its own. It returns the new path.
func (h *HighWater) SetAside(at time.Time) (string, error) {
	aside := h.path + ".given-up-" + at.UTC().Format("20060102T150405Z")
	if err := os.Rename(h.path, aside); err != nil {
		return "", fmt.Errorf("set the high-water file aside: %w", err)
	}
	return aside, nil
}
