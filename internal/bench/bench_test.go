package bench

import (
	"context"
	"syscall"
	"testing"
	"time"
)

// BenchmarkGeneratorAndSink is the whole cost of the harness: the generator posts straight
// to the sink, which acks. One operation is one webhook; cpu-µs/op is the user and system
// time of both ends together, sockets included.
func BenchmarkGeneratorAndSink(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	sink, err := NewSink("127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	sink.reply = "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	done := make(chan error)
	go func() { done <- sink.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })

	l := newLedger()
	cfg := Config{IngestURL: sink.URL(), Secret: "secret"}.withDefaults()
	g, err := newGenerator(ctx, cfg, l)
	if err != nil {
		b.Fatal(err)
	}
	defer g.close()
	sink.ledger.Store(l)

	b.ResetTimer()
	before := cpuTime(b)
	// The ledger is full once b.N webhooks were issued.
	l.next.Store(uint64(maxWebhooks - b.N))
	if _, err := g.run(ctx, time.Hour, 0); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.StopTimer()
	if n := l.receipts.Load(); n != int64(b.N) {
		b.Fatalf("the sink received %d of %d webhooks", n, b.N)
	}
}

// BenchmarkStamp is what one webhook costs before it reaches a socket.
func BenchmarkStamp(b *testing.B) {
	t, err := parseTarget("http://127.0.0.1:1/ingest/ep")
	if err != nil {
		b.Fatal(err)
	}
	w := newWebhook(t, "secret", 1, 0, newPayload(1, DefaultPayloadBytes))
	b.ReportAllocs()
	for id := uint64(0); b.Loop(); id++ {
		w.stamp(id)
	}
}

// cpuTime is the processor time that this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
