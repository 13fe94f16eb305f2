package bench

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// LogResult is what a scenario measured of a log. Latencies are in milliseconds, of an HTTP client on the same machine.
type LogResult struct {
	Leaves int64 `json:"leaves"` // of the log at the beginning
	// Seal10k is the median time of a seal of 10,000 leaves, from reading them until their head was published.
	Seal10k    float64 `json:"seal_10k_ms"`
	Seal10kMax float64 `json:"seal_10k_max_ms"`
	// Publish is the longest time from a head's signature until the first client had it.
	Publish      float64 `json:"publish_ms"`
	InclusionP50 float64 `json:"inclusion_p50_ms"` // proofs of random leaves by index
	InclusionP99 float64 `json:"inclusion_p99_ms"`
	ByHashP99    float64 `json:"by_hash_p99_ms"` // by hash
	ConsistP99   float64 `json:"consistency_p99_ms"`
	// Verify is the median time to check an inclusion proof and its head's signatures, in microseconds.
	Verify float64 `json:"verify_us"`
	// WatchersLagP99 is from a head's publication until a watcher had it, over all watchers.
	WatchersLagP99 float64 `json:"watchers_lag_p99_ms"`
	Watchers       int     `json:"watchers"`
	// Missed counts watchers that did not get a head in time.
	Missed int `json:"watchers_missed"`
	// FillSeconds is what writing the log took, IndexSeconds how long the server then took to index its leaf hashes.
	FillSeconds  float64 `json:"fill_s"`
	IndexSeconds float64 `json:"index_s"`
	// CatchUp is there when leaves waited for a sealer that was away.
	CatchUp *CatchUp `json:"catch_up,omitempty"`
}

// CatchUp says how a backlog of leaves was sealed while new ones were recorded.
type CatchUp struct {
	Leaves  int64   `json:"leaves"`
	Seconds float64 `json:"seconds"`
	// Recording 100 new leaves, alone and while the backlog was sealed.
	RecordP99Alone float64 `json:"record_p99_alone_ms"`
	RecordP99      float64 `json:"record_p99_ms"`
}

// Distribution collects latencies for a result.
type Distribution struct{ latencies }

// NewDistribution makes an empty one.
func NewDistribution() Distribution { return Distribution{newLatencies()} }

// Record adds one latency.
func (d Distribution) Record(took time.Duration) { d.record(took) }

// Milliseconds is what percent of all stayed within.
func (d Distribution) Milliseconds(percent float64) float64 { return d.ms(percent) }

// Median of what was measured; 0 of nothing.
func Median(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(times))[len(times)/2]
}

// Err says why the run does not count.
func (r LogResult) Err() error {
	if r.Missed > 0 {
		return errors.New("not every watcher got every head in time")
	}
	return nil
}

// WriteTable prints the result for people.
func (r LogResult) WriteTable(w io.Writer) error {
	_, err := fmt.Fprintf(w, "log of %d leaves, written in %.1f s, leaf hashes indexed in %.1f s\n"+
		"seal of 10,000 leaves: %.1f ms, at most %.1f ms; signed to seen by a client: at most %.1f ms\n"+
		"inclusion proof: p50 %.2f ms, p99 %.2f ms; by hash p99 %.2f ms; consistency proof p99 %.2f ms; verified in %.0f µs\n"+
		"%d watchers: a new head after p99 %.1f ms; missed: %d\n",
		r.Leaves, r.FillSeconds, r.IndexSeconds, r.Seal10k, r.Seal10kMax, r.Publish,
		r.InclusionP50, r.InclusionP99, r.ByHashP99, r.ConsistP99, r.Verify, r.Watchers, r.WatchersLagP99, r.Missed)
	if err == nil && r.CatchUp != nil {
		_, err = fmt.Fprintf(w, "%d leaves caught up in %.1f s; recording 100 new ones meanwhile: p99 %.1f ms, alone %.1f ms\n",
			r.CatchUp.Leaves, r.CatchUp.Seconds, r.CatchUp.RecordP99, r.CatchUp.RecordP99Alone)
	}
	return err
}
