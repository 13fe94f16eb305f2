package verify_test

import (
	"testing"

	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// A proof of a log of a hundred thousand leaves. The bound is 1 ms.
func BenchmarkVerify(b *testing.B) {
	l := attemptLog(b)
	l.fill(b, 100_000)
	data := encode(b, l.pack(b, 12, 100_000))
	options := trust(l)
	b.ReportAllocs()
	for b.Loop() {
		if report, err := verify.Verify(data, options); err != nil || !report.Full {
			b.Fatal(err)
		}
	}
}
