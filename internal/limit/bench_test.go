package limit

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/route"
)

// What a webhook pays for its tenant's limits.
func BenchmarkTakeAndSettle(b *testing.B) {
	for name, limits := range map[string]route.Limits{
		"no limits":  {},
		"all limits": {PerSecond: 1_000_000, Burst: 1_000_000, PerDay: 1 << 60, BytesPerDay: 1 << 60},
	} {
		b.Run(name, func(b *testing.B) {
			l, tenant := New(nil, slog.New(slog.DiscardHandler)), uuid.New()
			at := time.Now()
			for b.Loop() {
				at = at.Add(time.Microsecond)
				if account, err := l.Take(tenant, &limits, 1024, at); err == nil {
					account.Settle(Stored, 1024)
				}
			}
		})
	}
}
