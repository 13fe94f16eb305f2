package fsck

import (
	"context"
	"fmt"
	"math/bits"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// erased are the leaves without bytes that no erasure has named yet. An erasure always comes after what it names, so what
// is left at the end of the log was blanked by somebody else. 64 leaves a word: the set stays small beside the log even
// when most of it is erased.
type erased struct {
	unnamed map[int64]uint64
	pending []erasure // those of the chunk at hand
}

// erasure is what the leaf of one says.
type erasure struct {
	index  int64
	tenant uuid.UUID
	leaves []int64
}

func (e *erased) blank(index int64) {
	if e.unnamed == nil {
		e.unnamed = make(map[int64]uint64)
	}
	e.unnamed[index/64] |= 1 << (index % 64)
}

// name takes in an erasure's leaf.
func (e *erased) name(check *Check, index int64, tenant uuid.UUID, leaf *leafv1.Erasure) {
	named := erasure{index: index, tenant: tenant}
	for _, at := range leaf.GetLeafIndexes() {
		if at >= uint64(index) {
			check.violate(leafName(index), "is an erasure that names leaf %d, which comes after it", at)
			return
		}
		named.leaves = append(named.leaves, int64(at))
		e.clear(int64(at))
	}
	e.pending = append(e.pending, named)
}

func (e *erased) clear(index int64) {
	word := e.unnamed[index/64] &^ (1 << (index % 64))
	if word == 0 {
		delete(e.unnamed, index/64)
	} else {
		e.unnamed[index/64] = word
	}
}

// checkNamed finds leaves that an erasure of this chunk names and that have their bytes still, or are of another tenant.
func (r *run) checkNamed(ctx context.Context, e *erased, check *Check) error {
	for _, named := range e.pending {
		check.Examined++
		rows, err := r.tx.Query(ctx, `select leaf_index, leaf = '' from attempts
			where log_id = $1 and leaf_index = any($2::bigint[]) and (leaf <> '' or tenant_id <> $3)`, r.LogID, named.leaves, named.tenant)
		if err != nil {
			return err
		}
		var at int64
		var blank bool
		_, err = pgx.ForEachRow(rows, []any{&at, &blank}, func() error {
			if blank {
				check.violate(leafName(at), "was of another tenant than its erasure, leaf %d", named.index)
			} else {
				check.violate(leafName(at), "has its bytes, although leaf %d says that they were erased", named.index)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("look for the leaves of an erasure: %w", err)
		}
	}
	e.pending = e.pending[:0]
	return nil
}

// finish reports what is without bytes and without an erasure.
func (e *erased) finish(check *Check) {
	words := make([]int64, 0, len(e.unnamed))
	for word := range e.unnamed {
		words = append(words, word)
	}
	slices.Sort(words)
	for _, word := range words {
		for set := e.unnamed[word]; set != 0; set &= set - 1 {
			check.violate(leafName(word*64+int64(bits.TrailingZeros64(set))), "has no bytes, and no erasure names it")
		}
	}
}
