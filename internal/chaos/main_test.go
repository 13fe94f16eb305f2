package chaos

import (
	"context"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// scenarioTime bounds one scenario, on a busy machine. Usually it takes a tenth of it.
const scenarioTime = 3 * time.Minute

// scenario returns the context and the random source of a test.
func scenario(t *testing.T) (context.Context, *Random) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), scenarioTime)
	t.Cleanup(cancel)
	return ctx, NewRandom(t)
}

// scaled is n, and a fifth of it in short tests. Of both a load's count and its rate, so that it lasts as long.
func scaled(n int) int {
	if testing.Short() {
		return n / 5
	}
	return n
}

// settlePatience is how long what was held by a lost node may take to settle: leases run 75 s in the worst case, when the
// answer to a claim is lost together with the connection.
const settlePatience = 100 * time.Second
