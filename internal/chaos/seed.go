package chaos

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Random is the source of all that a scenario draws.
type Random struct{ *rand.Rand }

// seedFlag repeats a run; make chaos sets it.
var seedFlag = flag.Uint64("seed", 0, "seed of the scenarios; 0: a new one")

// NewRandom returns a source whose seed is printed with the test's output.
func NewRandom(t testing.TB) *Random {
	t.Helper()
	seed := rand.Uint64()
	if *seedFlag != 0 {
		seed = *seedFlag
	} else if text := os.Getenv("KAPSEL_CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("KAPSEL_CHAOS_SEED: %v", err)
		}
	}
	t.Logf("KAPSEL_CHAOS_SEED=%d", seed)
	return &Random{rand.New(rand.NewPCG(seed, 0))}
}
