package bench

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Result is what one run measured. Rates count until the last webhook was accepted,
// delivered, recorded or sealed: a backlog at the end of the load lowers them. Latencies are
// in milliseconds and start when a webhook was due; for one that was refused and repeated
// they include the wait. A null was not told by the server.
type Result struct {
	AcceptedPerSecond  float64 `json:"accepted_per_s"`
	DeliveredPerSecond float64 `json:"delivered_per_s"`
	RecordedPerSecond  float64 `json:"recorded_per_s"`
	SealedPerSecond    float64 `json:"sealed_per_s"`

	AckP50   float64  `json:"ack_p50_ms"` // due to the 202
	AckP99   float64  `json:"ack_p99_ms"`
	E2EP50   float64  `json:"e2e_p50_ms"` // due to the whole body at the sink
	E2EP99   float64  `json:"e2e_p99_ms"`
	SealP99  *float64 `json:"seal_p99_ms"`
	ProofP99 *float64 `json:"proof_p99_ms"`

	// Lost is the number of webhooks that were answered 202 and never delivered.
	Lost int64 `json:"lost"`
	// Duplicated is the number of deliveries beyond a webhook's first.
	Duplicated int64 `json:"duplicated"`
	// RoundTrips is the number of database round trips for each accepted webhook.
	RoundTrips *float64 `json:"db_round_trips_per_webhook"`
	// WALBytes is the write-ahead log for each accepted webhook, until the last was sealed.
	WALBytes *float64 `json:"wal_bytes_per_webhook"`

	DeliveryP50 float64 `json:"delivery_p50_ms"` // the 202 to the sink; 0 if overtaken
	DeliveryP99 float64 `json:"delivery_p99_ms"`

	Accepted  int64 `json:"accepted"`
	Delivered int64 `json:"delivered"`
	Recorded  int64 `json:"recorded"` // attempts; more than Delivered after retries
	Sealed    int64 `json:"sealed"`   // attempts under a signed tree head
	// UnackedDelivered counts webhooks that arrived although their 202 was never read.
	UnackedDelivered int64 `json:"unacked_delivered"`
	// Foreign counts requests at the sink that were none of this run.
	Foreign int64 `json:"foreign"`
	// OutOfOrder counts webhooks that came before an earlier one of their key. 0 where they have no keys.
	OutOfOrder int64 `json:"out_of_order,omitempty"`
	// Rejected is the number of answers other than 202, by status.
	Rejected map[int]int64 `json:"rejected_by_status"`
	// ConnectionErrors counts failed connects and requests without a whole answer.
	ConnectionErrors int64 `json:"connection_errors"`
	// Unsent counts webhooks of the schedule that no connection was free for.
	Unsent int64 `json:"unsent"`

	Conns        int     `json:"conns"`
	Rate         float64 `json:"rate"` // webhooks a second; 0 is as fast as answered
	PayloadBytes int     `json:"payload_bytes"`
	Seconds      float64 `json:"duration_s"` // of sending
}

func newResult(cfg Config, warm, p phase) Result {
	r := Result{
		AcceptedPerSecond:  perSecond(p.accepted, p.lastAckNs),
		DeliveredPerSecond: perSecond(p.delivered, p.lastReceivedNs),
		// Attempts beyond one a webhook are the server's cost, not its throughput.
		RecordedPerSecond: perSecond(min(p.recorded, p.accepted), p.recordedNs),
		SealedPerSecond:   perSecond(min(p.sealed, p.accepted), p.sealedNs),
		AckP50:            p.ack.ms(50), AckP99: p.ack.ms(99),
		E2EP50: p.e2e.ms(50), E2EP99: p.e2e.ms(99),
		DeliveryP50: p.delivery.ms(50), DeliveryP99: p.delivery.ms(99),
		Lost: warm.lost + p.lost, Duplicated: warm.repeats + p.repeats,
		Accepted: p.accepted, Delivered: p.delivered, Recorded: p.recorded, Sealed: p.sealed,
		UnackedDelivered: p.unackedDelivered, Foreign: p.foreign, OutOfOrder: p.outOfOrder,
		Rejected: p.refused, ConnectionErrors: p.failures, Unsent: p.unsent,
		Conns: cfg.Conns, Rate: cfg.Rate, PayloadBytes: cfg.PayloadBytes, Seconds: cfg.Duration.Seconds(),
	}
	if p.roundTrips >= 0 && p.accepted > 0 {
		r.RoundTrips = new(float64(p.roundTrips) / float64(p.accepted))
	}
	if p.walBytes >= 0 && p.accepted > 0 {
		r.WALBytes = new(float64(p.walBytes) / float64(p.accepted))
	}
	return r
}

func perSecond(n, untilNs int64) float64 {
	if untilNs <= 0 {
		return 0
	}
	return float64(n) / (float64(untilNs) / 1e9)
}

// Err says why the run does not count: it lost a webhook, accepted none, or left some
// unrecorded or unsealed when the drain timeout ran out.
func (r Result) Err() error {
	var errs []error
	if r.Accepted == 0 {
		errs = append(errs, fmt.Errorf("no webhook was accepted (answers: %s; connection errors: %d)", r.rejections(), r.ConnectionErrors))
	}
	if r.Lost != 0 {
		errs = append(errs, fmt.Errorf("%d accepted webhooks were not delivered", r.Lost))
	}
	if r.Recorded < r.Delivered {
		errs = append(errs, fmt.Errorf("%d delivered webhooks have no recorded attempt", r.Delivered-r.Recorded))
	}
	if r.Sealed < r.Recorded {
		errs = append(errs, fmt.Errorf("%d recorded attempts are not sealed", r.Recorded-r.Sealed))
	}
	return errors.Join(errs...)
}

// rejections lists the answers other than 202, such as "429 x 12, 503 x 3".
func (r Result) rejections() string {
	if len(r.Rejected) == 0 {
		return "none"
	}
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(r.Rejected)) {
		parts = append(parts, fmt.Sprintf("%d x %d", status, r.Rejected[status]))
	}
	return strings.Join(parts, ", ")
}

// writeLoad prints what was sent, above a table.
func (r Result) writeLoad(w io.Writer) error {
	pace := "as fast as answered"
	if r.Rate > 0 {
		pace = fmt.Sprintf("%g webhooks/s", r.Rate)
	}
	_, err := fmt.Fprintf(w, "%d connections, %d-byte webhooks, %g s, %s\n\n", r.Conns, r.PayloadBytes, r.Seconds, pace)
	return err
}

// WriteTable prints the result for people.
func (r Result) WriteTable(w io.Writer) error {
	if err := r.writeLoad(w); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\tcount\tper second\tp50 ms\tp99 ms\t\n")
	fmt.Fprintf(t, "accepted\t%d\t%.0f\t%.2f\t%.2f\t\n", r.Accepted, r.AcceptedPerSecond, r.AckP50, r.AckP99)
	fmt.Fprintf(t, "delivered\t%d\t%.0f\t%.2f\t%.2f\t\n", r.Delivered, r.DeliveredPerSecond, r.E2EP50, r.E2EP99)
	fmt.Fprintf(t, "recorded\t%d\t%.0f\t\t\t\n", r.Recorded, r.RecordedPerSecond)
	fmt.Fprintf(t, "sealed\t%d\t%.0f\t\t%s\t\n", r.Sealed, r.SealedPerSecond, optional(r.SealP99))
	fmt.Fprintf(t, "proof\t\t\t\t%s\t\n", optional(r.ProofP99))
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nlost %d, duplicated %d, database round trips per webhook %s, bytes of write-ahead log %s\nother answers: %s; connection errors: %d; unsent: %d; delivered without a read 202: %d; foreign: %d\n",
		r.Lost, r.Duplicated, optional(r.RoundTrips), optional(r.WALBytes), r.rejections(), r.ConnectionErrors, r.Unsent, r.UnackedDelivered, r.Foreign)
	return err
}

func optional(v *float64) string {
	if v == nil {
		return "unknown"
	}
	return fmt.Sprintf("%.2f", *v)
}
