package chaos

import (
	"testing"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// CheckKept fails unless what the sources were promised was kept: one event for each webhook, however often it was posted;
// each delivered, with its bytes.
func CheckKept(t testing.TB, posted []Posted, ledger *Ledger, arrivals map[string]Arrival) {
	t.Helper()
	seen := make(map[string]string, len(posted))
	for _, p := range posted {
		if other, twice := seen[p.EventID]; twice {
			t.Errorf("deliveries %s and %s got the same event %s", other, p.DeliveryID, p.EventID)
		}
		seen[p.EventID] = p.DeliveryID
		arrival := arrivals[p.EventID]
		switch {
		case arrival.Count == 0:
			t.Errorf("event %s was acknowledged after %d tries and never arrived", p.EventID, p.Tries)
		case arrival.Differs || arrival.Sum != p.Sum:
			t.Errorf("event %s arrived with other bytes than were posted", p.EventID)
		}
	}
	if ledger.Events != len(posted) {
		t.Errorf("%d webhooks made %d events", len(posted), ledger.Events)
	}
	if len(arrivals) != len(posted) {
		t.Errorf("%d webhooks were posted, and %d events arrived", len(posted), len(arrivals))
	}
}

// CheckRecorded fails unless the ledger accounts for all that the destination saw: no arrival without a leaf, and no
// second arrival without an attempt whose end is not known. It returns how many arrivals were repeats.
func CheckRecorded(t testing.TB, ledger *Ledger, arrivals map[string]Arrival) (repeats int) {
	t.Helper()
	for event, arrival := range arrivals {
		var succeeded, unknown int
		numbers := make(map[uint32]bool)
		for _, attempt := range ledger.Attempts[event] {
			numbers[attempt.Number] = true
			switch attempt.Outcome {
			case leafv1.Outcome_OUTCOME_SUCCEEDED:
				succeeded++
			case leafv1.Outcome_OUTCOME_UNKNOWN:
				unknown++
			case leafv1.Outcome_OUTCOME_FAILED, leafv1.Outcome_OUTCOME_UNSPECIFIED:
				t.Errorf("event %s has an attempt with outcome %v (%v), at a destination that answers 200", event, attempt.Outcome, attempt.Failure)
			}
		}
		repeats += arrival.Count - 1
		switch leaves := len(ledger.Attempts[event]); {
		case arrival.Count > leaves:
			t.Errorf("event %s arrived %d times, and has %d leaves", event, arrival.Count, leaves)
		case succeeded == 0:
			t.Errorf("event %s arrived, but none of its %d attempts is recorded as a success", event, leaves)
		case succeeded > arrival.Count:
			t.Errorf("event %s has %d successes and arrived %d times", event, succeeded, arrival.Count)
		case arrival.Count-1 > unknown:
			t.Errorf("event %s arrived %d times, and only %d of its attempts have an unknown end", event, arrival.Count, unknown)
		}
		for n := range len(numbers) {
			if !numbers[uint32(n+1)] {
				t.Errorf("event %s has %d different attempt numbers, and none is %d", event, len(numbers), n+1)
			}
		}
	}
	return repeats
}

// CheckLog fails unless the served log grew out of the earlier checkpoint, holds just the ledger's leaves, and no head
// that was ever published contradicts them.
func CheckLog(t testing.TB, log *LogClient, earlier Checkpoint, ledger *Ledger) {
	t.Helper()
	ledger.CheckDense(t)
	latest := log.Checkpoint(t)
	log.CheckGrown(t, earlier, latest)
	log.CheckLeaves(t, latest, ledger.Leaves)
	ledger.CheckHeads(t, log)
}
