package ingest

import (
	"fmt"
	"testing"
	"time"
)

// The statement of the group commit, at the size of batch that 64 busy connections make.
func BenchmarkCommitBatch(b *testing.B) {
	const webhooks = 60
	r := newRig(b, time.Second)
	body := string(make([]byte, 1<<10))
	n := 0
	for b.Loop() {
		b.StopTimer()
		batch := make([]*pending, webhooks)
		for i := range batch {
			n++
			w := r.webhook(fmt.Sprint(n), body)
			w.Header.Set("User-Agent", "GitHub-Hookshot/0123456")
			w.Header.Set("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")
			w.Header.Set("X-GitHub-Hook-Installation-Target-Type", "repository")
			batch[i] = newPending(w, "github")
		}
		b.StartTimer()
		if _, err := r.committer.writeOnce(b.Context(), batch, false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/webhooks, "ns/webhook")
}
