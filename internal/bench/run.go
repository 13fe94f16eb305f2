package bench

import (
	"context"
	"fmt"
	"time"
)

const (
	// drainPoll is how exactly the last record and the last seal are timed.
	drainPoll = 10 * time.Millisecond
	// proofSamples is how many proofs are timed after the load.
	proofSamples = 200
	// proofsTimeout bounds all of them together.
	proofsTimeout = time.Minute
)

// Run puts the load of cfg on a running server whose endpoint delivers to sink, waits until
// all that was accepted has been delivered, recorded and sealed, and times a
// few hundred proofs.
// The sink must be running. On an error the result holds what was measured before it; a
// result without an error may still be a failed run, see Result.Err.
func Run(ctx context.Context, cfg Config, sink *Sink, probe Probe) (Result, error) {
	if err := cfg.Validate(); err != nil {
		return Result{}, err
	}
	cfg = cfg.withDefaults()
	defer sink.ledger.Store(nil)

	warm, err := warmUp(ctx, cfg, sink, probe)
	if err != nil {
		return Result{}, err
	}
	known := len(probe.Seals())
	measured, err := runPhase(ctx, cfg, stageLoad, cfg.Duration, sink, probe)
	r := newResult(cfg, warm, measured)
	if err != nil {
		return r, err
	}
	if seals := probe.Seals(); len(seals) > known {
		l := newLatencies()
		for _, d := range seals[known:] {
			l.record(d)
		}
		r.SealP99 = new(l.ms(99))
	}
	if measured.sealed == 0 {
		return r, nil
	}
	proofs, err := timeProofs(ctx, cfg, probe)
	if err != nil {
		return r, err
	}
	r.ProofP99 = new(proofs.ms(99))
	return r, nil
}

// warmUp puts the load on before anything is measured, for as long as cfg says.
func warmUp(ctx context.Context, cfg Config, sink *Sink, probe Probe) (phase, error) {
	if cfg.Warmup == 0 {
		return phase{}, nil
	}
	p, err := runPhase(ctx, cfg, stageWarmUp, cfg.Warmup, sink, probe)
	if err != nil {
		return p, fmt.Errorf("warm up: %w", err)
	}
	return p, nil
}

// timeProofs asks for proofs one after the other.
func timeProofs(ctx context.Context, cfg Config, probe Probe) (latencies, error) {
	ctx, cancel := context.WithTimeout(ctx, proofsTimeout)
	defer cancel()
	l := newLatencies()
	for n := range proofSamples {
		cfg.Progress(stageProofs, int64(n), proofSamples)
		d, err := probe.Prove(ctx)
		if err != nil {
			return l, fmt.Errorf("fetch proof %d of %d: %w", n+1, proofSamples, err)
		}
		l.record(d)
	}
	return l, nil
}

// phase is one stretch of load with its drain.
type phase struct {
	outcome
	tally
	repeats    int64 // deliveries of a webhook that had been delivered before
	outOfOrder int64 // webhooks that came before an earlier one of their key
	foreign    int64 // requests at the sink that were none of this phase's webhooks
	recorded   int64 // webhooks whose attempt is in the ledger
	sealed     int64 // of these, covered by a tree head
	roundTrips int64 // negative when unknown
	walBytes   int64 // the same

	recordedNs int64 // when recorded last grew
	sealedNs   int64 // when sealed last grew
}

// runPhase sends for d and drains. The stage is what the sending is called.
func runPhase(ctx context.Context, cfg Config, stage string, d time.Duration, sink *Sink, probe Probe) (phase, error) {
	l := newLedger()
	g, err := newGenerator(ctx, cfg, l)
	if err != nil {
		return phase{}, err
	}
	defer g.close()
	before, err := probe.Progress(ctx)
	if err != nil {
		return phase{}, fmt.Errorf("read progress before the load: %w", err)
	}
	foreign := sink.foreign.Load()
	l.start = time.Now()
	sink.ledger.Store(l)

	var p phase
	stop := cfg.tellTime(stage, d)
	p.tally, err = g.run(ctx, d, cfg.Rate)
	stop()
	if err == nil {
		err = p.drain(ctx, cfg, l, probe, before)
	}
	p.outcome = l.addUp()
	p.repeats = l.repeats.Load()
	if cfg.Keys > 0 {
		p.outOfOrder = l.outOfOrder(cfg.Keys)
	}
	p.foreign = sink.foreign.Load() - foreign
	return p, err
}

// drain waits until each acked webhook is at the sink, each receipt there is recorded as an
// attempt, and each recorded attempt is sealed, but no longer than cfg.DrainTimeout.
func (p *phase) drain(ctx context.Context, cfg Config, l *ledger, probe Probe, before Progress) error {
	deadline := l.now() + int64(cfg.DrainTimeout)
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	first := uint64(0)
	for {
		first = l.undelivered(first)
		// Read before the probe looks, so that a receipt in between is not demanded of it.
		receipts := l.receipts.Load()
		now, err := probe.Progress(ctx)
		if err != nil {
			return fmt.Errorf("read progress while draining: %w", err)
		}
		at := l.now()
		// What is recorded once there is an attempt for each receipt is not of this load, such as the failures of
		// another destination. It would have no end.
		if n := now.Recorded - before.Recorded; n > p.recorded && (first < l.issued() || p.recorded < receipts) {
			p.recorded, p.recordedNs = n, at
		}
		// What was already recorded before the load is sealed first, and not counted.
		if n := min(now.Sealed-before.Recorded, p.recorded); n > p.sealed {
			p.sealed, p.sealedNs = n, at
		}
		cfg.Progress(stageDrain, p.sealed, int64(l.issued()))
		p.roundTrips = now.RoundTrips - before.RoundTrips
		if now.RoundTrips < 0 || before.RoundTrips < 0 {
			p.roundTrips = -1
		}
		p.walBytes = now.WALBytes - before.WALBytes
		if now.WALBytes < 0 || before.WALBytes < 0 {
			p.walBytes = -1
		}
		if first == l.issued() && p.recorded >= receipts && p.sealed >= p.recorded {
			return nil
		}
		if at >= deadline {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
	}
}
