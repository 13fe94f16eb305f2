package logclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

const (
	// CheckTiles is that the tiles are of one tree, and that it has the root that was signed.
	CheckTiles = "tiles"
	// CheckLeaves is that the leaves' bytes are those that were hashed.
	CheckLeaves = "leaves"

	// auditBatch tiles are fetched at once, and are all that is held of level 0: 512 KiB.
	auditBatch = 64
	auditConns = 8
	// maxDifferences are named; all are counted.
	maxDifferences = 20
)

// LeafSource gives the hashes of leaves, computed from their bytes.
type LeafSource interface {
	// Leaves calls take for each leaf from first up to end, in order; hash is nil for one whose bytes were erased. A leaf
	// that it passes over is missing.
	Leaves(ctx context.Context, first, end int64, take func(index int64, hash *[tlog.HashSize]byte) error) error
}

// Audit recomputes a log's tree from its tiles.
type Audit struct {
	Client
	// Head is what is audited; nil: the head that is served.
	Head *verify.Head
	// Leaves, if not nil, are compared with level 0 of the tiles.
	Leaves LeafSource
	// FirstLeaf is the first one that Leaves has: earlier ones are not kept any more.
	FirstLeaf int64
	// Progress is called after each batch with the number of leaves so far. Optional.
	Progress func(done, total int64)
}

// AuditReport is what an audit found.
type AuditReport struct {
	Head *verify.Head
	// Tiles that were read, and leaves whose bytes were compared, or were erased.
	Tiles, Compared, Erased int64
	// Differences names what is not as it must be, the first 20; Found is how many there are.
	Differences []string
	Found       int64
}

func (r *AuditReport) differs(format string, arguments ...any) {
	r.Found++
	if len(r.Differences) < maxDifferences {
		r.Differences = append(r.Differences, fmt.Sprintf(format, arguments...))
	}
}

// Run reads every tile of the tree from the lowest level on, and compares: each hash of a higher level with what the level
// below gives, the root with the one that was signed, and, if there is a source of leaves, each leaf with its hash. What it
// holds in memory does not grow with the log.
//
// A *verify.Error means that something differs; then the report names it. Any other error means that the audit could not
// be made.
func (a *Audit) Run(ctx context.Context) (*AuditReport, error) {
	head := a.Head
	if head == nil {
		var err error
		if head, err = a.Client.Head(ctx); err != nil {
			return nil, err
		}
	}
	run := &auditRun{
		Audit: a, ctx: ctx, report: &AuditReport{Head: head},
		whole: (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0),
	}
	if err := run.leaves(head.Size); err != nil {
		return run.report, err
	}
	if err := run.edge(head.Size); err != nil {
		return run.report, err
	}
	root := rfc6962.DefaultHasher.EmptyRoot()
	if head.Size > 0 {
		var err error
		if root, err = run.whole.GetRootHash(nil); err != nil {
			return run.report, err
		}
	}
	if !bytes.Equal(root, head.Root[:]) {
		run.report.differs("tree size %d was signed with root %x, and the tiles of level 0 have root %x", head.Size, head.Root, root)
	}
	if found := run.report.Found; found > 0 {
		check := CheckTiles
		if run.leavesDiffer {
			check = CheckLeaves
		}
		return run.report, &verify.Error{Check: check, Reason: fmt.Sprintf("%d differences, the first: %s", found, run.report.Differences[0])}
	}
	return run.report, nil
}

type auditRun struct {
	*Audit
	ctx          context.Context
	report       *AuditReport
	whole        *compact.Range
	upper        [][]byte // the hashes of the unfinished tile of each level above 0, as they are computed
	leavesDiffer bool
}

// leaves goes through level 0.
func (r *auditRun) leaves(size int64) error {
	for first := int64(0); first < size; first += auditBatch * tileWidth {
		end := min(size, first+auditBatch*tileWidth)
		var tiles []tlog.Tile
		for at := first; at < end; at += tileWidth {
			tiles = append(tiles, tlog.Tile{H: tileHeight, N: at / tileWidth, W: int(min(tileWidth, end-at))})
		}
		hashes, err := r.fetch(tiles)
		if err != nil {
			return err
		}
		for i, tile := range tiles {
			if hashes[i] == nil {
				r.report.differs("%s is not served, though the tree of %d leaves needs it", tilePath(tile)[1:], size)
				return &verify.Error{Check: CheckTiles, Reason: r.report.Differences[0]}
			}
			if err := r.tile(tile, hashes[i]); err != nil {
				return err
			}
		}
		if err := r.compare(first, end, hashes); err != nil {
			return err
		}
		if r.Progress != nil {
			r.Progress(end, size)
		}
	}
	return nil
}

// tile takes in a tile of level 0, and lets the levels above grow if it is full.
func (r *auditRun) tile(tile tlog.Tile, hashes []byte) error {
	for at := 0; at < len(hashes); at += tlog.HashSize {
		if err := r.whole.Append(hashes[at:at+tlog.HashSize], nil); err != nil {
			return err
		}
	}
	if tile.W < tileWidth {
		return nil
	}
	return r.grow(1, tile.N, tileRoot(hashes))
}

// grow appends a hash, the index-th of its level. A tile that is full then is compared, and makes a hash of the next level.
func (r *auditRun) grow(level int, index int64, hash []byte) error {
	for len(r.upper) < level {
		r.upper = append(r.upper, nil)
	}
	r.upper[level-1] = append(r.upper[level-1], hash...)
	computed := r.upper[level-1]
	if len(computed) < tileWidth*tlog.HashSize {
		return nil
	}
	r.upper[level-1] = nil
	if err := r.same(tlog.Tile{H: tileHeight, L: level, N: index / tileWidth, W: tileWidth}, computed); err != nil {
		return err
	}
	return r.grow(level+1, index/tileWidth, tileRoot(computed))
}

// edge compares the unfinished tiles of the levels above 0.
func (r *auditRun) edge(size int64) error {
	for i, computed := range r.upper {
		if len(computed) == 0 {
			continue
		}
		level := i + 1
		tile := tlog.Tile{H: tileHeight, L: level, N: size >> (tileHeight * (level + 1)), W: len(computed) / tlog.HashSize}
		if err := r.same(tile, computed); err != nil {
			return err
		}
	}
	return nil
}

// same compares a tile with what the level below gives.
func (r *auditRun) same(tile tlog.Tile, computed []byte) error {
	hashes, err := r.fetch([]tlog.Tile{tile})
	if err != nil {
		return err
	}
	if hashes[0] == nil {
		r.report.differs("%s is not served", tilePath(tile)[1:])
		return nil
	}
	for at := 0; at < len(computed); at += tlog.HashSize {
		if !bytes.Equal(hashes[0][at:at+tlog.HashSize], computed[at:at+tlog.HashSize]) {
			below := tlog.Tile{H: tileHeight, L: tile.L - 1, N: tile.N*tileWidth + int64(at/tlog.HashSize), W: tileWidth}
			r.report.differs("hash %d of %s is not that of %s: one of the two is not what was signed", at/tlog.HashSize, tilePath(tile)[1:], tilePath(below)[1:])
		}
	}
	return nil
}

// fetch reads tiles, some at a time. One that is not served is nil.
func (r *auditRun) fetch(tiles []tlog.Tile) ([][]byte, error) {
	hashes := make([][]byte, len(tiles))
	errs := make([]error, len(tiles))
	var running sync.WaitGroup
	slots := make(chan struct{}, auditConns)
	for i, tile := range tiles {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			hashes[i], errs[i] = r.Client.tile(r.ctx, tile)
		})
	}
	running.Wait()
	r.report.Tiles += int64(len(tiles))
	for i, err := range errs {
		if errors.Is(err, errNotFound) {
			hashes[i], errs[i] = nil, nil
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read served tiles: %w", err)
	}
	return hashes, nil
}

// compare compares the bytes of leaves with level 0.
func (r *auditRun) compare(first, end int64, tiles [][]byte) error {
	if r.Leaves == nil || end <= r.FirstLeaf {
		return nil
	}
	want := max(first, r.FirstLeaf)
	missing := func(until int64) {
		if want < until {
			r.leavesDiffer = true
			r.report.differs("leaves %d to %d are missing", want, until-1)
		}
	}
	err := r.Leaves.Leaves(r.ctx, want, end, func(index int64, hash *[tlog.HashSize]byte) error {
		missing(index)
		want = index + 1
		if hash == nil {
			r.report.Erased++
			return nil
		}
		r.report.Compared++
		at := (index - first) % tileWidth * tlog.HashSize
		if signed := tiles[(index-first)/tileWidth][at : at+tlog.HashSize]; !bytes.Equal(signed, hash[:]) {
			r.leavesDiffer = true
			r.report.differs("leaf %d has other bytes than those that were hashed: its hash is %x, and was %x", index, *hash, signed)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read leaves from %d to %d: %w", first, end, err)
	}
	missing(end)
	return nil
}

// tileRoot is the root over a full tile.
func tileRoot(hashes []byte) []byte {
	level := hashes
	for len(level) > tlog.HashSize {
		next := make([]byte, 0, len(level)/2)
		for at := 0; at < len(level); at += 2 * tlog.HashSize {
			next = append(next, rfc6962.DefaultHasher.HashChildren(level[at:at+tlog.HashSize], level[at+tlog.HashSize:at+2*tlog.HashSize])...)
		}
		level = next
	}
	return level
}
