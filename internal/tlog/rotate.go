package tlog

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
	"github.com/kapsel-dev/kapsel/store"
)

// MaxKeyOverlap bounds for how long a log is signed with two keys.
const MaxKeyOverlap = 400 * 24 * time.Hour

// Rotate hands the log over from its key in force to a next one, which must be new: a leaf says so, signed by both, and
// from then on until the overlap ends heads are signed by both. Sealers see it at their next signature. A node
// that lacks the next key stops sealing, so all should have it before. Returns the leaf's place.
func Rotate(ctx context.Context, db store.DBTX, logID int32, origin string, keys *Keys, next *Key, overlap time.Duration) (int64, error) {
	if overlap < 0 || overlap > MaxKeyOverlap {
		return 0, fmt.Errorf("rotate key: an overlap of %v is outside 0 to %v", overlap, MaxKeyOverlap)
	}
	queries := store.New()
	inForce, err := queries.LogKeysInForce(ctx, db, logID)
	if err != nil {
		return 0, fmt.Errorf("read keys in force: %w", err)
	}
	if len(inForce) != 1 {
		return 0, fmt.Errorf("rotate key: %d keys are in force: wait until the overlap of the last change has ended", len(inForce))
	}
	old, err := keys.find(inForce[0])
	if err != nil {
		return 0, fmt.Errorf("rotate key: %w", err)
	}
	all, err := queries.ListLogKeys(ctx, db, logID)
	if err != nil {
		return 0, fmt.Errorf("read keys: %w", err)
	}
	if slices.ContainsFunc(all, func(row store.ListLogKeysRow) bool { return bytes.Equal(next.public, row.PublicKey) }) {
		return 0, errors.New("rotate key: the next key is or was a key of this log: make a new one")
	}
	now := time.Now().UTC().Truncate(time.Second)
	leaf, err := encodeRotation(origin, old, next, now, now.Add(overlap))
	if err != nil {
		return 0, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return 0, fmt.Errorf("make leaf's id: %w", err)
	}
	rows, err := queries.RecordKeyRotation(ctx, db, store.RecordKeyRotationParams{
		LogID: logID, OldPublicKey: old.public, NewPublicKey: next.public, OverlapSeconds: overlap.Seconds(), LeafID: id, Leaf: leaf,
	})
	if err != nil {
		return 0, fmt.Errorf("record key rotation: %w", err)
	}
	if len(rows) != 1 {
		return 0, errors.New("rotate key: somebody else has just done so")
	}
	return rows[0], nil
}

// Rotation is a recorded hand-over from one key of the log to the next.
type Rotation struct {
	LeafIndex int64
	Leaf      []byte
	NewKey    ed25519.PublicKey
}

// Rotations returns all hand-overs, in the order of the log, also those that no head covers yet.
func (r *Reader) Rotations(ctx context.Context) ([]Rotation, error) {
	rows, err := r.tiles.queries.ListKeyRotations(ctx, r.tiles.db, r.tiles.logID)
	if err != nil {
		return nil, fmt.Errorf("read key rotations: %w", err)
	}
	list := make([]Rotation, len(rows))
	for i, row := range rows {
		list[i] = Rotation{row.LeafIndex, row.Leaf, row.NewPublicKey}
	}
	return list, nil
}

// encodeRotation returns the leaf of a hand-over, which has been checked.
func encodeRotation(origin string, old, next *Key, at, retires time.Time) ([]byte, error) {
	r := verify.Rotation{Origin: origin, RotatedAt: at, OldKeyRetiresAt: retires}
	var err error
	if r.OldKey, err = old.VerifierKey(origin); err != nil {
		return nil, err
	}
	if r.NewKey, err = next.VerifierKey(origin); err != nil {
		return nil, err
	}
	statement := verify.RotationStatement(r)
	signatures := make([][]byte, 2)
	for i, key := range []*Key{old, next} {
		if signatures[i], err = key.signer().Sign(rand.Reader, statement, crypto.Hash(0)); err != nil {
			return nil, fmt.Errorf("sign key rotation: %w", err)
		}
	}
	nonce := make([]byte, 16)
	rand.Read(nonce) // never fails
	leaf, err := proto.Marshal(&leafv1.Leaf{Nonce: nonce, Kind: &leafv1.Leaf_KeyRotation{KeyRotation: &leafv1.KeyRotation{
		Origin: origin, OldPublicKey: old.public, NewPublicKey: next.public,
		RotatedAt: timestamppb.New(at), OldKeyRetiresAt: timestamppb.New(retires), OldSignature: signatures[0], NewSignature: signatures[1],
	}}})
	if err != nil {
		return nil, fmt.Errorf("encode key rotation: %w", err)
	}
	if _, err := verify.OpenRotation(leaf); err != nil {
		return nil, fmt.Errorf("check key rotation: %w", err)
	}
	return leaf, nil
}
