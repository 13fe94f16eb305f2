package fsck

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// leafChunk is how many leaves are in memory at a time: about 3 MiB, and a whole number of tiles.
const leafChunk = 20 * merkle.TileWidth

// logChecks are the checks of the one pass over the log.
type logChecks struct {
	dense, columns, erasures, payloads, tiles, heads *Check
	erased                                           erased
}

// head is a published head as the database has it.
type head struct {
	size     int64
	root     []byte
	signedAt time.Time
	note     string
}

// checkLog goes through all leaves once, and recomputes tiles and heads from them.
func (r *run) checkLog(ctx context.Context) error {
	began := time.Now()
	c := logChecks{
		dense:    r.newCheck("leaf indexes are dense, from 0 to the next index"),
		columns:  r.newCheck("a leaf says what its row says"),
		erasures: r.newCheck("leaves without bytes are those that an erasure names"),
		tiles:    r.newCheck("tiles are those of the leaves"),
		heads:    r.newCheck("heads are signed, in order, and have the root of the leaves"),
	}
	if r.Deep {
		c.payloads = r.newCheck("payloads are those that the leaves name")
	}
	var origin string
	var next int64
	err := r.tx.QueryRow(ctx, `select origin, next_index from logs where log_id = $1`, r.LogID).Scan(&origin, &next)
	if err != nil {
		return fmt.Errorf("read log %d: %w", r.LogID, err)
	}
	heads, err := r.readHeads(ctx, origin, c.heads)
	if err != nil {
		return err
	}
	first, err := r.firstLeaf(ctx, next, c.dense)
	if err != nil {
		return err
	}
	sealed := int64(0)
	if len(heads) > 0 {
		sealed = heads[len(heads)-1].size
	}
	if sealed > next {
		c.heads.violate(treeName(sealed), "was signed, but the log's next index is %d", next)
	}
	tree := &tree{run: r, edge: new(merkle.Tree), pending: heads, checks: &c}
	for at := int64(0); at < max(next, sealed); at += leafChunk {
		stop := min(at+leafChunk, max(next, sealed))
		if err := r.checkChunk(ctx, &c, tree, first, at, stop, min(stop, sealed)); err != nil {
			return err
		}
	}
	c.erased.finish(c.erasures)
	if err := r.checkBeyond(ctx, next, c.dense); err != nil {
		return err
	}
	if err := tree.finish(ctx, sealed); err != nil {
		return err
	}
	if err := r.checkHighWater(ctx, origin, next, sealed, tree, c.heads); err != nil {
		return err
	}
	for _, check := range []*Check{c.dense, c.columns, c.erasures, c.tiles, c.heads, c.payloads} {
		if check != nil {
			check.Took = time.Since(began)
		}
	}
	return nil
}

// readHeads reads all heads and checks each one's signature, and their order. A head takes a few hundred bytes; there
// is at most one a second.
func (r *run) readHeads(ctx context.Context, origin string, check *Check) ([]head, error) {
	rows, err := r.tx.Query(ctx, `select public_key from log_keys where log_id = $1`, r.LogID)
	if err != nil {
		return nil, err
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (key ed25519.PublicKey, err error) {
		return key, row.Scan((*[]byte)(&key))
	})
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if rows, err = r.tx.Query(ctx, `select tree_size, root_hash, signed_at, note from tree_heads where log_id = $1 order by tree_size`, r.LogID); err != nil {
		return nil, err
	}
	var heads []head
	var h head
	_, err = pgx.ForEachRow(rows, []any{&h.size, &h.root, &h.signedAt, &h.note}, func() error {
		check.Examined++
		signed, at, err := checkpoint.Open(h.note, origin, keys...)
		switch {
		case err != nil:
			check.violate(treeName(h.size), "its note is not signed by the log: %v", err)
		case signed.Size != h.size || !bytes.Equal(signed.Root[:], h.root) || !at.Equal(h.signedAt):
			check.violate(treeName(h.size), "its note is of another tree or time")
		}
		if n := len(heads); n > 0 && h.signedAt.Before(heads[n-1].signedAt.Add(-clockSlack)) {
			check.violate(treeName(h.size), "was signed at %v, before the smaller tree size %d", h.signedAt, heads[n-1].size)
		}
		h.note = ""
		heads = append(heads, h)
		h.root = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	return heads, r.checkSealerRow(ctx, heads, check)
}

// clockSlack is how far the clocks of two nodes may differ before it counts.
const clockSlack = time.Minute

// checkSealerRow compares what the next publication will be compared with to the largest head.
func (r *run) checkSealerRow(ctx context.Context, heads []head, check *Check) error {
	var size int64
	var root []byte
	err := r.tx.QueryRow(ctx, `select tree_size, root_hash from log_sealers where log_id = $1`, r.LogID).Scan(&size, &root)
	if err != nil {
		return fmt.Errorf("read sealer's state: %w", err)
	}
	if n := len(heads); n == 0 && size > 0 || n > 0 && (heads[n-1].size != size || !bytes.Equal(heads[n-1].root, root)) {
		check.violate(treeName(size), "is the sealer's last head, and not the largest published one")
	}
	return nil
}

// checkHighWater compares the mark beside the key, if one is given.
func (r *run) checkHighWater(ctx context.Context, origin string, next, sealed int64, tree *tree, check *Check) error {
	if r.HighWaterFile == "" {
		return nil
	}
	file, err := tlog.OpenHighWater(r.HighWaterFile, origin)
	if err != nil {
		return err
	}
	mark, ok := file.Mark()
	switch {
	case !ok:
	case mark.Size > next:
		var recovering bool
		if err := r.tx.QueryRow(ctx, `select pg_is_in_recovery()`).Scan(&recovering); err != nil {
			return fmt.Errorf("ask whether the server is in recovery: %w", err)
		}
		if recovering {
			check.violate(treeName(mark.Size), "is the high-water mark, but the log has only %d leaves so far: the server is in recovery (pg_is_in_recovery()), check again when that has ended", next)
			break
		}
		check.violate(treeName(mark.Size), "is the high-water mark, but the log has only %d leaves: it was restored or has lost data", next)
	case mark.Size <= sealed:
		if published, found := tree.root(mark.Size); found && !bytes.Equal(published, mark.Root[:]) {
			check.violate(treeName(mark.Size), "was signed with root %s, by the high-water mark", mark.Root)
		}
	}
	return nil
}

func treeName(size int64) string { return fmt.Sprintf("tree size %d", size) }

func leafName(index int64) string { return fmt.Sprintf("leaf %d", index) }
