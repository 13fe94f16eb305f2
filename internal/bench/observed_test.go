package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestObservedScenarioTakesTurns(t *testing.T) {
	var order strings.Builder
	r, err := RunObserved(t.Context(), 3, func(_ context.Context, observed bool) (Result, error) {
		result := Result{Accepted: 10, Delivered: 10, Recorded: 10, Sealed: 10, DeliveredPerSecond: 100}
		if observed {
			order.WriteByte('O')
			result.DeliveredPerSecond, result.Duplicated = 80+float64(order.Len()), 1 // 82, 83 and 86
		} else {
			order.WriteByte('P')
		}
		return result, nil
	})
	if err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	if order.String() != "POOPPO" {
		t.Errorf("the order was %s", order.String())
	}
	if r.PlainPerSecond != 100 || r.ObservedPerSecond != 83 || r.Ratio != 0.83 || r.Duplicated != 3 || len(r.Plain) != 3 || len(r.Observed) != 3 {
		t.Errorf("%+v", r)
	}
	r.Observed[1].Lost = 1
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "not delivered") {
		t.Errorf("a run that lost a webhook: %v", err)
	}
	broken := errors.New("broken")
	if _, err := RunObserved(t.Context(), 1, func(context.Context, bool) (Result, error) { return Result{}, broken }); !errors.Is(err, broken) {
		t.Errorf("a server that cannot be measured: %v", err)
	}
}
