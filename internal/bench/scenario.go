package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
)

// MaxBacklog bounds what a scenario queues: ten times what the service is measured with.
const MaxBacklog = 10_000_000

// Server is what a scenario asks of the server under test, beyond what a probe tells. Such a
// server is the harness's own: nobody else may wait behind what is queued here.
type Server interface {
	Probe
	// Queue puts n deliveries behind a destination that is dead, each an event of its own, due
	// at once and leased by nobody: what intake writes while a node has no room.
	Queue(ctx context.Context, n int) error
	// Settle has the database write out what it was given so far, so that no phase pays for what was
	// before it.
	Settle(ctx context.Context) error
	// Queued counts the deliveries that wait for the dead destination.
	Queued(ctx context.Context) (int, error)
	// Connections counts the connections that the server has to its database.
	Connections(ctx context.Context) (int, error)
}

// Footprint is what the run took of the machine.
type Footprint struct {
	// PeakMiB is the largest resident memory of the process so far: server, generator and sink
	// together, PostgreSQL not among them. Null where the system does not tell.
	PeakMiB *float64 `json:"rss_mib"`
	// Connections is the number of database connections. Pools keep what they once opened for
	// longer than a run, so it is the largest number too.
	Connections int `json:"db_connections"`
}

// measureFootprint looks once; it belongs at the end of a phase.
func measureFootprint(ctx context.Context, server Server) (Footprint, error) {
	connections, err := server.Connections(ctx)
	if err != nil {
		return Footprint{}, fmt.Errorf("count database connections: %w", err)
	}
	return Footprint{PeakMiB: peakMemory(), Connections: connections}, nil
}

// peakMemory is the VmHWM of proc(5) in MiB, nil where there is none.
func peakMemory() *float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(status) {
		fields := bytes.Fields(line)
		if len(fields) == 3 && string(fields[0]) == "VmHWM:" && string(fields[2]) == "kB" {
			if kib, err := strconv.ParseInt(string(fields[1]), 10, 64); err == nil {
				return new(float64(kib) / 1024)
			}
		}
	}
	return nil
}

func (f Footprint) String() string {
	return fmt.Sprintf("peak resident memory %s MiB, database connections %d", optional(f.PeakMiB), f.Connections)
}

// ratio is a/b, and 0 when there is no b: JSON has no infinity.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
