package server

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// These are clients of others, as they are: what they verify is not verified by our own arithmetic.

// sumdbTiles fetches tiles for golang.org/x/mod/sumdb/tlog, whose paths name the height too.
type sumdbTiles struct{ base string }

func (sumdbTiles) Height() int                         { return 8 }
func (sumdbTiles) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (s sumdbTiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range tiles {
		response, err := http.Get(s.base + strings.Replace(tile.Path(), "tile/8/", "/tile/", 1))
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %d, %v", tile.Path(), response.StatusCode, err)
		}
		data = append(data, body)
	}
	return data, nil
}

// treesOf are two heads of a served log as another implementation reads their notes, the older one first.
func (r *rig) treesOf(policy torchwood.Policy, olderThan int64) (older, latest tlog.Tree) {
	r.t.Helper()
	anyone := r.account(id.New(), "").attestation
	for _, head := range must(anyone.ListTreeHeads(r.t.Context(), &kapselv1.ListTreeHeadsRequest{PageSize: 1000}))(r.t).TreeHeads {
		c, _, err := torchwood.VerifyCheckpoint([]byte(head.Note), policy)
		if err != nil {
			r.t.Fatalf("head of size %d: %v\n%s", head.TreeSize, err, head.Note)
		}
		if latest.N == 0 {
			latest = c.Tree
		}
		if c.N > 0 && c.N < olderThan {
			return c.Tree, latest
		}
	}
	r.t.Fatalf("no head below %d leaves", olderThan)
	return older, latest
}

func TestOtherImplementationsVerifyTheServedLog(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	r.sealedLog(a, 270) // more than one tile
	base := r.url + "/log/1"
	verifier := must(note.NewVerifier(must(r.key.VerifierKey(testOrigin))(t)))(t)
	policy := torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(testOrigin), torchwood.SingleVerifierPolicy(verifier))
	older, latest := r.treesOf(policy, 256)
	anyone := r.account(id.New(), "").attestation
	inclusion := func(index int64) *kapselv1.InclusionProof {
		t.Helper()
		return must(anyone.GetInclusionProof(t.Context(), &kapselv1.GetInclusionProofRequest{
			Leaf: &kapselv1.GetInclusionProofRequest_LeafIndex{LeafIndex: index}, TreeSize: proto.Int64(latest.N),
		}))(t).Proof
	}
	indexes := []int64{0, 1, 255, 256, latest.N - 1}
	consistency := must(anyone.GetConsistencyProof(t.Context(), &kapselv1.GetConsistencyProofRequest{FromSize: older.N, ToSize: &latest.N}))(t).Proof

	readers := map[string]tlog.HashReader{
		"golang.org/x/mod/sumdb/tlog": tlog.TileHashReader(latest, sumdbTiles{base}),
		"filippo.io/torchwood": torchwood.TileHashReaderWithContext(t.Context(), latest,
			must(torchwood.NewTileFetcher(base))(t)),
	}
	for name, reader := range readers {
		for _, index := range indexes {
			path := must(tlog.ProveRecord(latest.N, index, reader))(t)
			leaf := must(reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)}))(t)[0]
			if err := tlog.CheckRecord(path, latest.N, latest.Hash, index, leaf); err != nil {
				t.Errorf("%s: leaf %d: %v", name, index, err)
			}
			ours := inclusion(index)
			if err := tlog.CheckRecord(oracleHashes(ours.AuditPath), latest.N, latest.Hash, index, tlog.Hash(ours.LeafHash)); err != nil || leaf != tlog.Hash(ours.LeafHash) {
				t.Errorf("%s: our proof of leaf %d: %v", name, index, err)
			}
		}
		path := must(tlog.ProveTree(latest.N, older.N, reader))(t)
		for _, p := range []tlog.TreeProof{path, oracleHashes(consistency.Hashes)} {
			if err := tlog.CheckTree(p, latest.N, latest.Hash, older.N, older.Hash); err != nil {
				t.Errorf("%s: tree %d within %d: %v", name, older.N, latest.N, err)
			}
		}
	}

	// And the checkpoint, as torchwood's client fetches it.
	served := must(must(torchwood.NewTileFetcher(base))(t).ReadEndpoint(t.Context(), "checkpoint"))(t)
	if c, signed, err := torchwood.VerifyCheckpoint(served, policy); err != nil || c.N < latest.N || len(signed.Sigs) != 1 {
		t.Errorf("checkpoint: %v, %v", c, err)
	}
	cosigned := must(torchwood.NewCosignatureVerifier(cosignatureKey(t, r)))(t)
	if _, _, err := torchwood.VerifyCheckpoint(served, torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(testOrigin), torchwood.SingleVerifierPolicy(cosigned))); err != nil {
		t.Errorf("the log's own timestamped cosignature: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func oracleHashes(raw [][]byte) []tlog.Hash {
	list := make([]tlog.Hash, len(raw))
	for i := range raw {
		list[i] = tlog.Hash(raw[i])
	}
	return list
}

// cosignatureKey is the log's key as that of its cosignatures (C2SP tlog-cosignature, type 0x04).
func cosignatureKey(t *testing.T, r *rig) string {
	t.Helper()
	typed := append([]byte{4}, r.key.Public()...)
	hash := sha256.Sum256(append([]byte(testOrigin+"\n"), typed...))
	return fmt.Sprintf("%s+%x+%s", testOrigin, hash[:4], base64.StdEncoding.EncodeToString(typed))
}
