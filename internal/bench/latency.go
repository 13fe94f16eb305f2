package bench

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// latencies is a distribution from 1 µs to an hour, exact to three digits.
type latencies struct {
	micros *hdrhistogram.Histogram
}

func newLatencies() latencies {
	return latencies{hdrhistogram.New(1, time.Hour.Microseconds(), 3)}
}

// record adds one latency; what lies outside the range counts as the nearest bound.
func (l latencies) record(d time.Duration) {
	micros := min(max(d.Microseconds(), 1), l.micros.HighestTrackableValue())
	// The clamp above leaves the only error of RecordValue, a value out of range, no way in.
	_ = l.micros.RecordValue(micros)
}

// ms is the latency in milliseconds that percent of all stayed within; 0 without any.
func (l latencies) ms(percent float64) float64 {
	if l.micros == nil || l.micros.TotalCount() == 0 {
		return 0
	}
	return float64(l.micros.ValueAtQuantile(percent)) / 1000
}

// outcome is a ledger, added up.
type outcome struct {
	accepted         int64 // answered 202
	delivered        int64 // of these, received at least once
	lost             int64 // of these, never received
	unackedDelivered int64 // received although no 202 was read
	lastAckNs        int64
	lastReceivedNs   int64 // of an accepted one

	ack      latencies // due to answered
	e2e      latencies // due to received
	delivery latencies // answered to received
}

// addUp reads the whole ledger once. Nothing may be sent any more.
func (l *ledger) addUp() outcome {
	o := outcome{ack: newLatencies(), e2e: newLatencies(), delivery: newLatencies()}
	for id, end := uint64(0), l.issued(); id < end; id++ {
		r := l.at(id)
		sent, acked, received := r.sentNs.Load(), r.ackedNs.Load(), r.receivedNs.Load()
		if acked == 0 {
			if received != 0 {
				o.unackedDelivered++
			}
			continue
		}
		o.accepted++
		o.lastAckNs = max(o.lastAckNs, acked)
		o.ack.record(time.Duration(acked - sent))
		if received == 0 {
			o.lost++
			continue
		}
		o.delivered++
		o.lastReceivedNs = max(o.lastReceivedNs, received)
		o.e2e.record(time.Duration(received - sent))
		// A delivery may overtake its own answer; that is 0, not less.
		o.delivery.record(time.Duration(max(received-acked, 0)))
	}
	return o
}
