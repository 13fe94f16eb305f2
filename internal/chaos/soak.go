package chaos

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Sample is what a service under steady load holds at one moment.
type Sample struct {
	Seconds         float64 `json:"seconds"` // since the load began
	Acknowledged    int64   `json:"acknowledged"`
	ResidentMiB     float64 `json:"resident_mib"` // of the node
	Goroutines      float64 `json:"goroutines"`
	QueueRows       float64 `json:"queue_rows"` // as PostgreSQL estimates them
	QueueTableMiB   float64 `json:"queue_table_mib"`
	QueueIndexMiB   float64 `json:"queue_index_mib"`
	QueueDeadTuples float64 `json:"queue_dead_tuples"`
	Connections     float64 `json:"connections"` // of the node to the database
}

// Trend compares the last third of a run with its middle third; the first is the time in which caches and pools fill.
type Trend struct {
	Name     string  `json:"name"`
	Middle   float64 `json:"middle"`
	Last     float64 `json:"last"`
	MaxLast  float64 `json:"max_last"` // what Last may be at most
	Grows    bool    `json:"grows"`
	Compared string  `json:"compared"` // medians, peaks or maxima
}

// minSoakSamples is how many samples a run needs for each third to have a median that says something.
const minSoakSamples = 15

// Trends judges a run. What moves up and down by nature (a queue between two vacuums) is compared by its peaks, which are what
// one sample in ten exceeds: a moment in which the machine had no time to vacuum is no growth. What is never given back is compared by
// its maxima, the rest by medians. The tolerance is a share, and a few units of what the smallest noise is.
func Trends(samples []Sample) ([]Trend, error) {
	if len(samples) < minSoakSamples {
		return nil, fmt.Errorf("%d samples say nothing about growth: want %d or more", len(samples), minSoakSamples)
	}
	third := len(samples) / 3
	middle, last := samples[third:2*third], samples[2*third:]
	judge := func(name, compared string, share, slack float64, value func(Sample) float64) Trend {
		measure := measures[compared]
		t := Trend{Name: name, Compared: compared, Middle: measure(values(middle, value)), Last: measure(values(last, value))}
		t.MaxLast = t.Middle*(1+share) + slack
		t.Grows = t.Last > t.MaxLast
		return t
	}
	return []Trend{
		judge("resident memory, MiB", "medians", 0.10, 8, func(s Sample) float64 { return s.ResidentMiB }),
		judge("goroutines", "medians", 0.10, 10, func(s Sample) float64 { return s.Goroutines }),
		judge("queue table, MiB", "peaks", 0.10, 1, func(s Sample) float64 { return s.QueueTableMiB }),
		judge("queue indexes, MiB", "peaks", 0.10, 1, func(s Sample) float64 { return s.QueueIndexMiB }),
		judge("queue dead tuples", "peaks", 0.25, 10_000, func(s Sample) float64 { return s.QueueDeadTuples }),
		judge("database connections", "maxima", 0, 2, func(s Sample) float64 { return s.Connections }),
	}, nil
}

func values(samples []Sample, value func(Sample) float64) []float64 {
	list := make([]float64, len(samples))
	for i, s := range samples {
		list[i] = value(s)
	}
	return list
}

var measures = map[string]func([]float64) float64{
	"medians": func(list []float64) float64 { return quantile(list, 1, 2) },
	"peaks":   func(list []float64) float64 { return quantile(list, 9, 10) },
	"maxima":  slices.Max[[]float64],
}

func quantile(list []float64, share, of int) float64 {
	slices.Sort(list)
	return list[len(list)*share/of]
}

// WriteTrends prints a table for people.
func WriteTrends(w io.Writer, trends []Trend) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "\tmiddle third\tlast third\tat most\tcompared\t")
	for _, trend := range trends {
		verdict := "flat"
		if trend.Grows {
			verdict = "GROWS"
		}
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.1f\t%s\t%s\n", trend.Name, trend.Middle, trend.Last, trend.MaxLast, trend.Compared, verdict)
	}
	return t.Flush()
}
