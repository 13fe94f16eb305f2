package tlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// leaseTime is how long a leader that is gone holds up the others.
	leaseTime = 6 * time.Second
	// lookInterval is how often a sealer looks even if nobody pokes it: to renew the lease or to try for it, and to see
	// leaves that other nodes recorded. A third of the lease, so that one lost round trip does not lose it.
	lookInterval = leaseTime / 3
	// pokeInterval bounds the looks that pokes cause: a busy recorder pokes hundreds of times a second.
	pokeInterval = 100 * time.Millisecond
	// Retries after a failed look, for example while the database restarts.
	minBackoff, maxBackoff = 100 * time.Millisecond, 3 * time.Second
	// finishTimeout bounds the last seal when Run ends.
	finishTimeout = 10 * time.Second
)

// Config is what a Sealer needs. Fields without a default are required.
type Config struct {
	LogID     int32
	Origin    string
	Node      uuid.UUID  // who holds the lease
	DB        store.DBTX // a pool of the engine's role
	Keys      *Keys
	HighWater *HighWater // beside the keys
	// NeverLeads makes a sealer that only asks the one that leads. It needs neither keys nor a high-water mark.
	NeverLeads bool

	Witnesses      Witnesses     // cosign heads. Optional
	WitnessTimeout time.Duration // for how long a head waits for their quorum. Default DefaultWitnessTimeout

	MaxLeaves   int64         // seal when so many leaves wait. Default 100
	MaxAge      time.Duration // or when the oldest is so old. Default 10 s
	MinInterval time.Duration // but at most so often. Default 1 s

	Logger *slog.Logger    // default slog.Default()
	Heads  *Heads          // is told of each head. Optional
	OnSeal func(SealStats) // is called after each head was published; must not block or call the sealer. Optional
}

// SealStats tells of one seal.
type SealStats struct {
	Head   Head
	Leaves int64         // how many it added
	Waited time.Duration // age of the oldest of them when the seal began, by the database's clock
	Took   time.Duration // from reading the leaves until the head was published
	Signed time.Time     // when the signature was made
}

// Refusal is why and since when a sealer does not sign any more.
type Refusal struct {
	Reason error // wraps ErrRefused
	Since  time.Time
}

// Sealer turns recorded leaves into signed tree heads. Every node that seals runs one; the lease picks the one that works.
type Sealer struct {
	Config
	queries *store.Queries
	tiles   tileTable
	wake    chan struct{}
	// requested: somebody asked for a seal of whatever waits.
	requested atomic.Bool
	refusal   atomic.Pointer[Refusal]

	turn       chan struct{}         // of one look or flush at a time (lock); guards all below
	tree       *merkle.Tree          // of the published head, verified; nil unless this node leads
	published  checkpoint.Checkpoint // the head that tree is of
	ahead      ahead                 // what is read already of the leaves after tree
	since      time.Time             // no leaf after tree was recorded before this
	renewed    time.Time             // when the lease was taken or renewed last
	beyond     int64                 // a tree of this size may have been cosigned and never published
	complained time.Time             // when a missing key was logged last
	signed     time.Time             // when the last head was signed

	sealed time.Time // when Run's last seal began; only its goroutine uses it
}

// NewSealer checks the configuration and makes a sealer. EnsureLog must have run before it is used.
func NewSealer(cfg Config) (*Sealer, error) {
	if cfg.MaxLeaves == 0 {
		cfg.MaxLeaves = 100
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = 10 * time.Second
	}
	if cfg.MinInterval == 0 {
		cfg.MinInterval = time.Second
	}
	if cfg.WitnessTimeout == 0 {
		cfg.WitnessTimeout = DefaultWitnessTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	err := checkpoint.CheckOrigin(cfg.Origin)
	if cfg.DB == nil || cfg.Node == uuid.Nil || !cfg.NeverLeads && (cfg.Keys == nil || cfg.HighWater == nil) {
		err = errors.Join(err, errors.New("a database, a key, a high-water mark and a node id are required"))
	} else if !cfg.NeverLeads && cfg.HighWater.origin != cfg.Origin {
		err = errors.Join(err, fmt.Errorf("the high-water mark is of log %q", cfg.HighWater.origin))
	}
	if cfg.MaxLeaves < 0 || cfg.MaxAge < 0 || cfg.MinInterval < 0 {
		err = errors.Join(err, errors.New("the bounds of a seal cannot be negative"))
	}
	if err != nil {
		return nil, fmt.Errorf("configure sealer: %w", err)
	}
	queries := store.New()
	return &Sealer{
		Config:  cfg,
		queries: queries,
		tiles:   tileTable{queries: queries, db: cfg.DB, logID: cfg.LogID},
		wake:    make(chan struct{}, 1),
		turn:    make(chan struct{}, 1),
	}, nil
}

// Wake tells the sealer that leaves were recorded. It never blocks.
func (s *Sealer) Wake() {
	select {
	case s.wake <- struct{}{}:
	default: // a poke is waiting already
	}
}

// Refusal says why this node has ended sealing, nil if it has not.
func (s *Sealer) Refusal() *Refusal { return s.refusal.Load() }

// Run seals until ctx ends, then seals once more what waits, gives the lease back and returns nil. A database that is away
// is waited for. An error that Run returns wraps ErrRefused: sealing on would harm the log.
func (s *Sealer) Run(ctx context.Context) error {
	if err := s.lock(ctx); err == nil {
		s.forget() // what a panic in an earlier Run may have left half done
		s.unlock()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now()     // when the timer fires
	earliest := due       // a poke does not cause a look before this
	backoff := minBackoff // after the next failure
	newHead := s.newHead()
	for {
		select {
		case <-ctx.Done():
			return s.finish(ctx)
		case <-newHead:
			newHead = s.newHead()
			s.Wake()
			continue
		case <-s.wake:
			if earliest.Before(due) {
				due = earliest
				timer.Reset(time.Until(due))
			}
			continue
		case <-timer.C:
		}
		pause, err := s.look(ctx)
		switch {
		case err == nil:
			backoff = minBackoff
		case errors.Is(err, ErrRefused):
			s.refusal.Store(&Refusal{Reason: err, Since: time.Now()})
			return errors.Join(err, s.release(ctx))
		case ctx.Err() != nil:
			continue
		default:
			s.Logger.WarnContext(ctx, "sealing failed, trying again", slog.Int64("log_id", int64(s.LogID)),
				slog.Duration("pause", backoff), slog.Any("error", err))
			pause, backoff = backoff, min(2*backoff, maxBackoff)
		}
		now := time.Now()
		due, earliest = now.Add(pause), now.Add(pokeInterval)
		timer.Reset(pause)
	}
}

// Flush seals all leaves that wait now. It returns ErrNotLeader if another node seals this log.
func (s *Sealer) Flush(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	leads, err := s.lead(ctx)
	if err != nil {
		return err
	}
	if !leads {
		return ErrNotLeader
	}
	waiting, err := s.waiting(ctx)
	if err != nil {
		return err
	}
	return s.sealUntil(ctx, waiting)
}

// look takes or renews the lease, and seals if it is time to; a node that does not lead follows the one that does. It returns
// how long to wait until the next look.
func (s *Sealer) look(ctx context.Context) (time.Duration, error) {
	if err := s.lock(ctx); err != nil {
		return 0, err
	}
	defer s.unlock()
	leads, err := s.lead(ctx)
	if err == nil && !leads {
		err = s.refuse(s.follow(ctx))
	}
	if err != nil || !leads {
		return lookInterval, err
	}
	requested := s.requested.Swap(false)
	waiting, err := s.waiting(ctx)
	if err != nil || waiting.leaves == 0 {
		return lookInterval, err
	}
	if requested {
		return 0, s.sealUntil(ctx, waiting)
	}
	if waiting.leaves < s.MaxLeaves && waiting.age < s.MaxAge {
		return min(lookInterval, s.MaxAge-waiting.age), nil
	}
	if pause := time.Until(s.sealed.Add(s.MinInterval)); pause > 0 {
		if waiting.leaves > maxSealLeaves {
			return min(lookInterval, pause), nil
		}
		if err := s.hashLeaves(ctx, waiting.end); err != nil {
			s.forget()
			return 0, s.refuse(err)
		}
		return min(lookInterval, time.Until(s.sealed.Add(s.MinInterval))), nil
	}
	s.sealed = time.Now()
	if err := s.sealUntil(ctx, waiting); err != nil {
		return 0, err
	}
	return min(lookInterval, max(0, time.Until(s.sealed.Add(s.MinInterval)))), nil
}

// lock waits for its turn until ctx ends: a seal can last as long as witnesses are waited for.
func (s *Sealer) lock(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}: // also when ctx has ended
		return nil
	default:
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for a seal that is under way: %w", ctx.Err())
	}
}

func (s *Sealer) unlock() { <-s.turn }

// finish is the last seal, when ctx has ended.
func (s *Sealer) finish(ctx context.Context) error {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	err := s.Flush(last)
	if errors.Is(err, ErrNotLeader) {
		return nil
	}
	if err != nil {
		err = fmt.Errorf("seal before the end: %w", err)
	}
	return errors.Join(err, s.release(last))
}

// forget drops what is known of the log.
func (s *Sealer) forget() { s.tree, s.ahead = nil, ahead{} }

// release gives the lease back, so that another node can lead at once.
func (s *Sealer) release(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	s.forget()
	if err := s.queries.ReleaseSealerLease(ctx, s.DB, s.LogID, s.Node); err != nil {
		return fmt.Errorf("give sealer's lease back: %w", err)
	}
	return nil
}
