package tlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

// ErrNoQuorum: a head was signed, and is held back, because too few witnesses have cosigned it.
var ErrNoQuorum = errors.New("no quorum")

// DefaultWitnessTimeout is how long a head waits for its quorum before it is given up and signed anew.
const DefaultWitnessTimeout = 10 * time.Second

// Witnesses ask others to cosign this log's heads (package witness).
type Witnesses interface {
	// Cosign submits a head that was signed and that nobody has seen. With a policy that holds publication back it waits
	// for the quorum until ctx ends, and then returns ErrNoQuorum; otherwise it returns at once.
	Cosign(ctx context.Context, head Head) ([]Cosignature, error)
	// Published says that a head was published, by this node or by another one before: what comes later is stored.
	Published(head Head)
	// Ahead returns the size of a tree of this log that a witness has seen and that is larger than the head submitted
	// last, 0 if none has.
	Ahead() int64
}

// Cosignature is a line in a head's note that is not the log's own.
type Cosignature struct {
	note.Signature
	Line string // as written, without its newline
	// VerifierKey is the text of the key that the line was verified with. Empty: its kind is not known here.
	VerifierKey string
}

// cosign has a head cosigned. The lease is kept meanwhile, and lost if it cannot be kept: then somebody else publishes.
func (s *Sealer) cosign(ctx context.Context, head Head) ([]Cosignature, error) {
	if s.Witnesses == nil {
		return nil, nil
	}
	for until := time.Now().Add(s.WitnessTimeout); ; {
		wait := min(time.Until(until), lookInterval/2)
		bounded, cancel := context.WithTimeout(ctx, wait)
		lines, err := s.Witnesses.Cosign(bounded, head)
		cancel()
		if !errors.Is(err, ErrNoQuorum) || ctx.Err() != nil {
			return lines, err
		}
		if lost := s.renew(ctx); lost != nil {
			return nil, lost
		}
		if time.Now().Before(until) {
			continue
		}
		s.Logger.ErrorContext(ctx, "head held back: it lacks its quorum of witnesses", slog.Int64("log_id", int64(s.LogID)),
			slog.Int64("tree_size", head.Size), slog.Any("error", err))
		// Another node may have had a larger tree cosigned and then died. A witness that lies about it cannot make this
		// node sign what is not there: the next seal only takes in more leaves, as far as there are any.
		s.beyond = s.Witnesses.Ahead()
		return nil, err
	}
}

// checkMark makes sure that the tree which was signed last is a prefix of the one that is to be signed.
func (s *Sealer) checkMark(ctx context.Context, size int64) error {
	mark, ok := s.HighWater.Mark()
	if !ok || mark.Size <= s.published.Size || mark.Size >= size {
		return nil
	}
	var err error
	if mark.Root, err = merkle.RootAt(ctx, mark.Size, s.tiles.read); err != nil {
		return fmt.Errorf("compare with high-water mark: %w", err)
	}
	return s.HighWater.check(mark)
}

// StoredProof returns a function that proves consistency between any two sizes whose tiles are stored, published or not.
func StoredProof(db store.DBTX, logID int32) func(ctx context.Context, from, to int64) ([]merkle.Hash, error) {
	tiles := tileTable{queries: store.New(), db: db, logID: logID}
	return func(ctx context.Context, from, to int64) ([]merkle.Hash, error) {
		return merkle.ConsistencyProof(ctx, from, to, tiles.read)
	}
}

// StoreCosignatures returns a function that adds cosignatures to a published head. Of one key there is one line a head.
func StoreCosignatures(db store.DBTX, logID int32) func(ctx context.Context, treeSize int64, lines []Cosignature) error {
	queries := store.New()
	return func(ctx context.Context, treeSize int64, lines []Cosignature) error {
		params := store.AddCosignaturesParams{LogID: logID, TreeSize: treeSize}
		params.KeyNames, params.Lines, params.VerifierKeys = columns(lines)
		if err := queries.AddCosignatures(ctx, db, params); err != nil {
			return fmt.Errorf("store cosignatures of tree size %d: %w", treeSize, err)
		}
		return nil
	}
}

func columns(lines []Cosignature) (names, texts, keys []string) {
	names, texts, keys = []string{}, []string{}, []string{}
	for _, line := range lines {
		names, texts, keys = append(names, line.Name), append(texts, line.Line), append(keys, line.VerifierKey)
	}
	return names, texts, keys
}
