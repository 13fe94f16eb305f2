package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/bench"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	benchSeals        = 10
	benchSealLeaves   = 10_000
	benchProofs       = 2000
	benchOtherProofs  = 300
	benchIndexTimeout = 10 * time.Minute
	benchRecords      = 100 // leaves of a small batch while a backlog is sealed
)

// runLog measures a log of many leaves: what proofs, seals and watchers take.
func (b *benchFlags) runLog(ctx context.Context) (_ benchReport, err error) {
	result := bench.LogResult{Leaves: b.leaves, Watchers: benchWatchers}
	var key ed25519.PublicKey
	own, stop, err := startPreparedServer(ctx, b.dataDir, func(config *node.Config) (err error) {
		began := time.Now()
		key, err = fillLog(ctx, config, b.leaves, b.line)
		result.FillSeconds = time.Since(began).Seconds()
		return err
	})
	if err != nil {
		return nil, err
	}
	defer stop(&err)
	b.line.note("wrote a log of %d leaves in %.1f s", b.leaves, result.FillSeconds)
	if result.IndexSeconds, err = own.awaitIndex(ctx, b.leaves); err != nil {
		return nil, err
	}
	if err := own.Settle(ctx); err != nil {
		return nil, err
	}
	operator, err := own.operator(ctx)
	if err != nil {
		return nil, err
	}
	return b.profiled(func() (benchReport, error) {
		if err := own.measureProofs(ctx, key, b.line, &result); err != nil {
			return nil, err
		}
		if err := own.measureSeals(ctx, operator, b.line, &result); err != nil {
			return nil, err
		}
		if b.unsealed > 0 {
			if err := own.measureCatchUp(ctx, b.unsealed, b.line, &result); err != nil {
				return nil, err
			}
		}
		return result, nil
	})
}

// awaitIndex waits until the server has indexed the leaf hashes of all whole blocks.
func (s *benchServer) awaitIndex(ctx context.Context, leaves int64) (seconds float64, err error) {
	for began := time.Now(); time.Since(began) < benchIndexTimeout; time.Sleep(20 * time.Millisecond) {
		blocks, err := s.node.DB().LeafHashBlocks(ctx, s.node.DB().Engine(), fsckLogID)
		if err != nil {
			return 0, fmt.Errorf("read how far leaf hashes are indexed: %w", err)
		}
		if (blocks+1)<<16 > leaves {
			return time.Since(began).Seconds(), nil
		}
	}
	return 0, errors.New("the server did not index the log's leaf hashes in time")
}

// operator is a client that may have the log sealed.
func (s *benchServer) operator(ctx context.Context) (client, error) {
	if err := s.node.DB().EnsureOperatorTenant(ctx, s.node.DB().Engine()); err != nil {
		return client{}, fmt.Errorf("make the operator: %w", err)
	}
	key := tenant.NewKey()
	err := s.node.DB().CreateAPIKey(ctx, s.node.DB().Engine(), store.CreateAPIKeyParams{
		TenantID: tenant.OperatorID, KeyID: id.New(), DisplayName: "operator", Hint: key.Hint(), SecretHash: key.Hash(), Scopes: []string{"operator"},
	})
	if err != nil {
		return client{}, fmt.Errorf("create the operator's API key: %w", err)
	}
	return newClient(s.node.URL(), key.Text()), nil
}

// measureProofs asks for proofs one after the other, of random leaves and sizes, and verifies each.
func (s *benchServer) measureProofs(ctx context.Context, key ed25519.PublicKey, line *progressLine, result *bench.LogResult) error {
	inclusion, byHash, consistency := bench.NewDistribution(), bench.NewDistribution(), bench.NewDistribution()
	var verified []time.Duration
	for i := range benchProofs + benchOtherProofs {
		line.stage("proofs", int64(i), benchProofs+benchOtherProofs)
		index := rand.Int64N(result.Leaves)
		request := &kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_LeafIndex{LeafIndex: index}}
		into := inclusion
		if i >= benchProofs {
			hash := benchLeafHash(index)
			request.Leaf, into = &kapselv1.GetInclusionProofRequest_LeafHash{LeafHash: hash[:]}, byHash
		}
		began := time.Now()
		proof, err := s.client.attestation.GetInclusionProof(ctx, request)
		if err != nil {
			return fmt.Errorf("prove leaf %d: %w", index, err)
		}
		into.Record(time.Since(began))
		began = time.Now()
		if err := checkInclusion(proof, index, key); err != nil {
			return fmt.Errorf("verify the proof of leaf %d: %w", index, err)
		}
		verified = append(verified, time.Since(began))
	}
	for range benchOtherProofs {
		began := time.Now()
		if _, err := s.client.attestation.GetConsistencyProof(ctx, &kapselv1.GetConsistencyProofRequest{FromSize: rand.Int64N(result.Leaves), ToSize: proto.Int64(result.Leaves)}); err != nil {
			return fmt.Errorf("prove consistency: %w", err)
		}
		consistency.Record(time.Since(began))
	}
	result.InclusionP50, result.InclusionP99 = inclusion.Milliseconds(50), inclusion.Milliseconds(99)
	result.ByHashP99, result.ConsistP99 = byHash.Milliseconds(99), consistency.Milliseconds(99)
	result.Verify = float64(bench.Median(verified).Nanoseconds()) / 1000
	return nil
}

// checkInclusion checks a proof as its receiver does: the path, and the signatures of the head.
func checkInclusion(proof *kapselv1.GetInclusionProofResponse, index int64, key ed25519.PublicKey) error {
	signed, _, err := checkpoint.Open(proof.TreeHead.Note, benchOrigin, key)
	if err != nil {
		return err
	}
	path := make([]merkle.Hash, len(proof.Proof.AuditPath))
	for i := range path {
		path[i] = merkle.Hash(proof.Proof.AuditPath[i])
	}
	return merkle.VerifyInclusion(index, signed.Size, benchLeafHash(index), path, signed.Root)
}

// measureSeals records leaves and has them sealed, while many clients watch.
func (s *benchServer) measureSeals(ctx context.Context, operator client, line *progressLine, result *bench.LogResult) error {
	watchers, err := openWatchers(ctx, s.node.URL())
	if err != nil {
		return err
	}
	defer watchers.close()
	lags := bench.NewDistribution()
	var seals []time.Duration
	for i := range benchSeals {
		line.stage("seals", int64(i), benchSeals)
		if err := s.recordLeaves(ctx, benchSealLeaves); err != nil {
			return err
		}
		response, err := operator.attestation.SealLog(ctx, &kapselv1.SealLogRequest{})
		if err != nil {
			return fmt.Errorf("seal the log: %w", err)
		}
		head, found := s.headOf(response.TreeHead.TreeSize)
		if !found || head.Leaves < benchSealLeaves {
			return fmt.Errorf("the head of %d leaves was sealed in parts: the machine is too busy to measure it", response.TreeHead.TreeSize)
		}
		seals = append(seals, head.Took)
		result.Seal10kMax = max(result.Seal10kMax, head.Took.Seconds()*1000)
		first, missed := watchers.await(head.Head.Size, func(at time.Time) { lags.Record(at.Sub(head.published)) })
		result.Missed += missed
		result.Publish = max(result.Publish, first.Sub(head.Signed).Seconds()*1000)
	}
	result.Seal10k, result.WatchersLagP99 = bench.Median(seals).Seconds()*1000, lags.Milliseconds(99)
	return nil
}

func (s *benchServer) headOf(size int64) (benchHead, bool) {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		for _, head := range s.heads {
			if head.Head.Size == size {
				s.mu.Unlock()
				return head, true
			}
		}
		s.mu.Unlock()
	}
	return benchHead{}, false
}

// measureCatchUp keeps the sealer away while leaves are recorded, and then lets it go, while more are recorded.
func (s *benchServer) measureCatchUp(ctx context.Context, leaves int64, line *progressLine, result *bench.LogResult) error {
	db := s.node.DB()
	away := func(expiry string) error {
		_, err := db.Engine().Exec(ctx, "update log_sealers set lease_owner = $1, lease_expires_at = "+expiry+" where log_id = $2", uuid.New(), fsckLogID)
		if err != nil {
			return fmt.Errorf("take the sealer's lease: %w", err)
		}
		return nil
	}
	if err := away("now() + interval '1 day'"); err != nil {
		return err
	}
	for n := int64(0); n < leaves; n += benchSealLeaves {
		line.stage("leaves recorded", n, leaves)
		if err := s.recordLeaves(ctx, min(benchSealLeaves, leaves-n)); err != nil {
			return err
		}
	}
	record := func(into bench.Distribution) error {
		began := time.Now()
		defer func() { into.Record(time.Since(began)); time.Sleep(20 * time.Millisecond) }()
		return s.recordLeaves(ctx, benchRecords)
	}
	alone, meanwhile := bench.NewDistribution(), bench.NewDistribution()
	for range 200 {
		if err := record(alone); err != nil {
			return err
		}
	}
	progress, err := s.Progress(ctx)
	if err != nil {
		return err
	}
	began, end := time.Now(), progress.Recorded
	if err := away("now()"); err != nil {
		return err
	}
	for behind := end - progress.Sealed; progress.Sealed < end; {
		line.stage("leaves sealed", behind-(end-progress.Sealed), behind)
		if err := record(meanwhile); err != nil {
			return err
		}
		if progress, err = s.Progress(ctx); err != nil {
			return err
		}
	}
	result.CatchUp = &bench.CatchUp{
		Leaves: leaves, Seconds: time.Since(began).Seconds(), RecordP99Alone: alone.Milliseconds(99), RecordP99: meanwhile.Milliseconds(99),
	}
	return nil
}
