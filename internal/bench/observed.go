package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// MaxRounds bounds how often RunObserved measures each way.
const MaxRounds = 100

// ObservedResult says what it costs that a server is watched. Figures of several rounds are their medians.
type ObservedResult struct {
	ObservedPerSecond float64 `json:"observed_per_s"` // delivered
	PlainPerSecond    float64 `json:"plain_per_s"`
	// Ratio of the first to the second: 1 when watching costs nothing.
	Ratio float64 `json:"ratio"`
	// Processor time a webhook of all processes in µs: server, PostgreSQL, generator and sink, their start and end included. 0
	// where the system does not tell.
	ObservedCPU float64 `json:"observed_cpu_us"`
	PlainCPU    float64 `json:"plain_cpu_us"`
	CPURatio    float64 `json:"cpu_ratio"`
	Lost        int64   `json:"lost"` // all rounds together
	Duplicated  int64   `json:"duplicated"`
	// Plain and Observed are the rounds in full, in the order of their running.
	Plain    []Round `json:"plain"`
	Observed []Round `json:"observed"`
}

// Round is one measurement of a server that was started for it.
type Round struct {
	Result
	CPU float64 `json:"cpu_us"` // a webhook, see ObservedResult
}

// RunObserved measures as often as rounds says with and without an observer. measure starts a server, puts the load on it and
// ends it again. The order is that of A B B A, so that a machine that gets slower favours neither.
func RunObserved(ctx context.Context, rounds int, measure func(ctx context.Context, observed bool) (Result, error)) (ObservedResult, error) {
	var r ObservedResult
	if rounds < 1 || rounds > MaxRounds {
		return r, fmt.Errorf("rounds: %d is not in 1 to %d", rounds, MaxRounds)
	}
	for i := range 2 * rounds {
		observed := i%4 == 1 || i%4 == 2
		spent := processorTime()
		result, err := measure(ctx, observed)
		if err != nil {
			return r, err
		}
		round := Round{Result: result}
		if result.Accepted > 0 {
			round.CPU = float64((processorTime() - spent).Nanoseconds()) / 1000 / float64(result.Accepted)
		}
		r.Lost += result.Lost
		r.Duplicated += result.Duplicated
		if observed {
			r.Observed = append(r.Observed, round)
		} else {
			r.Plain = append(r.Plain, round)
		}
	}
	r.PlainPerSecond, r.PlainCPU = medians(r.Plain)
	r.ObservedPerSecond, r.ObservedCPU = medians(r.Observed)
	r.Ratio, r.CPURatio = ratio(r.ObservedPerSecond, r.PlainPerSecond), ratio(r.ObservedCPU, r.PlainCPU)
	return r, nil
}

func medians(rounds []Round) (perSecond, cpu float64) {
	var rates, times []float64
	for _, round := range rounds {
		rates, times = append(rates, round.DeliveredPerSecond), append(times, round.CPU)
	}
	return median(rates), median(times)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// Err says why the run does not count: one of its measurements does not.
func (r ObservedResult) Err() error {
	var errs []error
	for _, round := range slices.Concat(r.Plain, r.Observed) {
		errs = append(errs, round.Err())
	}
	return errors.Join(errs...)
}

// WriteTable prints the result for people.
func (r ObservedResult) WriteTable(w io.Writer) error {
	if err := r.Plain[0].writeLoad(w); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "server\tdelivered\tper second\tack p99 ms\tp99 ms\tCPU µs\t\n")
	for i := range r.Plain {
		for _, row := range []struct {
			name string
			r    Round
		}{{"plain", r.Plain[i]}, {"observed", r.Observed[i]}} {
			fmt.Fprintf(t, "%s\t%d\t%.0f\t%.2f\t%.2f\t%.1f\t\n", row.name, row.r.Delivered, row.r.DeliveredPerSecond, row.r.AckP99, row.r.E2EP99, row.r.CPU)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nobserved: %.3f times as many a second as plain (%.0f, %.0f), %.3f times the CPU (%.1f, %.1f µs a webhook)\nlost %d, duplicated %d\n",
		r.Ratio, r.ObservedPerSecond, r.PlainPerSecond, r.CPURatio, r.ObservedCPU, r.PlainCPU, r.Lost, r.Duplicated)
	return err
}
