// Package reseal brings the secrets at rest under the keyset's primary key: the last step of a rotation. It works in batches
// beside running nodes, which open what either key has sealed, and leaves alone what is changed meanwhile. A secret that
// does not open is counted and left as it is.
package reseal

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/store"
)

// DefaultBatch is how many secrets are read and written at once.
const DefaultBatch = 500

// Result counts secrets.
type Result struct {
	// Resealed are now under the primary key.
	Resealed int64
	// Unreadable do not open with this keyring.
	Unreadable int64
}

// sealed is one secret of any table.
type sealed struct {
	tenantID, id uuid.UUID
	purpose      string
	ciphertext   []byte
}

// batch is what a table gets back.
type batch struct {
	tenants, ids  []uuid.UUID
	before, after [][]byte
}

// table is where secrets are.
type table struct {
	name  string
	page  func(ctx context.Context, after uuid.UUID) ([]sealed, error)
	write func(ctx context.Context, b batch) (int64, error)
}

// Run reseals whatever another key than the primary one has sealed.
func Run(ctx context.Context, db *store.DB, keys *secret.Keyring, size int) (Result, error) {
	var result Result
	for _, t := range tables(db, secret.KeyPrefix(keys.Primary()), size) {
		if err := t.reseal(ctx, keys, &result); err != nil {
			return result, fmt.Errorf("reseal %s: %w", t.name, err)
		}
	}
	return result, nil
}

func (t table) reseal(ctx context.Context, keys *secret.Keyring, result *Result) error {
	var after uuid.UUID
	for {
		page, err := t.page(ctx, after)
		if err != nil || len(page) == 0 {
			return err
		}
		var b batch
		for _, s := range page {
			place := secret.AssociatedData(s.tenantID, s.id, s.purpose)
			plain, err := keys.Unseal(s.ciphertext, place)
			if err != nil {
				result.Unreadable++
				continue
			}
			fresh, err := keys.Seal(plain, place)
			if err != nil {
				return err
			}
			b.tenants, b.ids = append(b.tenants, s.tenantID), append(b.ids, s.id)
			b.before, b.after = append(b.before, s.ciphertext), append(b.after, fresh)
		}
		if len(b.ids) > 0 {
			n, err := t.write(ctx, b)
			if err != nil {
				return err
			}
			result.Resealed += n
		}
		after = page[len(page)-1].id
	}
}
