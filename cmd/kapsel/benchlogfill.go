package main

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	benchOrigin      = "log.bench.example/log/1"
	maxBenchLeaves   = 1_000_000_000
	maxBenchUnsealed = 10_000_000

	// Tiles of one statement, 2 MiB, and leaves of one step, 8 MiB.
	fillTiles  = 256
	fillLeaves = 256 * 1024
)

// fillLog writes the tiles of a log of made-up leaves, as the sealer would have, and signs its head with the key that the
// node finds in its state directory. The leaves themselves are not there, as after retention.
func fillLog(ctx context.Context, config *node.Config, leaves int64, line *progressLine) (ed25519.PublicKey, error) {
	config.LogOrigin = benchOrigin
	if err := os.MkdirAll(config.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	path := filepath.Join(config.StateDir, "log.key")
	key, err := tlog.OpenKeyFile(path)
	if err != nil {
		return nil, err
	}
	signer, err := readSigner(path)
	if err != nil {
		return nil, err
	}
	if _, err := store.Migrate(ctx, config.DatabaseURL); err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, config.DatabaseURL)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := tlog.EnsureLog(ctx, db.Engine(), fsckLogID, benchOrigin, key); err != nil {
		return nil, err
	}
	tree := new(merkle.Tree)
	for tree.Size() < leaves {
		line.stage("leaves written", tree.Size(), leaves)
		hashes := make([]merkle.Hash, min(fillLeaves, leaves-tree.Size()))
		for i := range hashes {
			hashes[i] = benchLeafHash(tree.Size() + int64(i))
		}
		next, tiles := tree.Grow(hashes)
		for len(tiles) > 0 {
			n := min(len(tiles), fillTiles)
			if err := putTiles(ctx, db, tiles[:n]); err != nil {
				return nil, err
			}
			tiles = tiles[n:]
		}
		tree = next
	}
	now := time.Now().UTC().Truncate(time.Second)
	root := tree.Root()
	note, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: benchOrigin, Size: leaves, Root: root}, now, signer)
	if err != nil {
		return nil, err
	}
	return key.Public(), pgx.BeginFunc(ctx, db.Engine(), func(tx pgx.Tx) error {
		for _, statement := range []struct {
			text string
			args []any
		}{
			{"insert into tree_heads (log_id, tree_size, root_hash, signed_at, note) values ($1, $2, $3, $4, $5)", []any{fsckLogID, leaves, root[:], now, note}},
			{"update log_sealers set tree_size = $2, root_hash = $3 where log_id = $1", []any{fsckLogID, leaves, root[:]}},
			{"update logs set next_index = $2 where log_id = $1", []any{fsckLogID, leaves}},
		} {
			if _, err := tx.Exec(ctx, statement.text, statement.args...); err != nil {
				return fmt.Errorf("publish the head of the made-up log: %w", err)
			}
		}
		return nil
	})
}

func benchLeafHash(index int64) merkle.Hash {
	return merkle.LeafHash(binary.BigEndian.AppendUint64(nil, uint64(index)))
}

func putTiles(ctx context.Context, db *store.DB, tiles []merkle.TileData) error {
	put := store.PutTilesParams{LogID: fsckLogID}
	for _, tile := range tiles {
		put.Levels = append(put.Levels, int16(tile.Level))
		put.TileIndexes = append(put.TileIndexes, tile.Index)
		put.Hashes = append(put.Hashes, tile.Hashes)
	}
	if err := db.PutTiles(ctx, db.Engine(), put); err != nil {
		return fmt.Errorf("write %d tiles: %w", len(tiles), err)
	}
	return nil
}

// readSigner reads the private half of a key file (PEM, PKCS #8).
func readSigner(path string) (crypto.Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read log key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read log key: %s holds no PEM block", path)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read log key %s: %w", path, err)
	}
	return private.(crypto.Signer), nil
}

// recordLeaves appends leaves of the size of an attempt's to the ledger, in one transaction, as the recorder does.
func (s *benchServer) recordLeaves(ctx context.Context, n int64) error {
	leaves := make([][]byte, n)
	for i := range leaves {
		leaves[i] = make([]byte, 500)
		rand.Read(leaves[i]) // never fails
	}
	return pgx.BeginFunc(ctx, s.node.DB().Engine(), func(tx pgx.Tx) error {
		var end int64
		if err := tx.QueryRow(ctx, "update logs set next_index = next_index + $1 where log_id = $2 returning next_index", n, fsckLogID).Scan(&end); err != nil {
			return fmt.Errorf("take leaf indexes: %w", err)
		}
		_, err := tx.Exec(ctx, `insert into attempts (log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id,
				outcome, leaf, diagnosis, response_excerpt)
			select $1, $2::bigint + place - 1, now(), $3, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, leaf, '', ''
			from unnest($4::bytea[]) with ordinality as u(leaf, place)`, fsckLogID, end-n, s.tenantID, leaves)
		if err != nil {
			return fmt.Errorf("record %d leaves: %w", n, err)
		}
		return nil
	})
}
