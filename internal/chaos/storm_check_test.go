package chaos

import (
	"testing"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// minDelivered is the share of acknowledged webhooks that must be delivered in the end. The rest are dead letters.
const minDelivered = 0.999

// checkOutcomes fails unless each acknowledged webhook made one event, which was delivered with the bytes that were
// posted, or else is a visible dead letter.
func checkOutcomes(t *testing.T, posted []Posted, ledger *Ledger, arrivals map[string]Arrival, dead map[string]bool) {
	t.Helper()
	delivered, seen := 0, make(map[string]bool, len(posted))
	for _, p := range posted {
		if seen[p.EventID] {
			t.Errorf("two webhooks got the same event %s", p.EventID)
		}
		seen[p.EventID] = true
		if arrival, arrived := arrivals[p.EventID]; arrived && (arrival.Differs || arrival.Sum != p.Sum) {
			t.Errorf("event %s arrived with other bytes than were posted", p.EventID)
		}
		switch ok := succeeded(ledger.Attempts[p.EventID]); {
		case ok && dead[p.EventID]:
			t.Errorf("event %s was delivered, and is a dead letter", p.EventID)
		case ok:
			delivered++
		case !dead[p.EventID]:
			t.Errorf("event %s was acknowledged after %d tries, and is neither delivered nor dead after %d attempts",
				p.EventID, p.Tries, len(ledger.Attempts[p.EventID]))
		}
	}
	if ledger.Events != len(posted) {
		t.Errorf("%d webhooks made %d events", len(posted), ledger.Events)
	}
	for event := range arrivals {
		if !seen[event] {
			t.Errorf("event %s arrived, and nobody was told of it", event)
		}
	}
	if delivered+len(dead) != len(posted) || float64(delivered) < minDelivered*float64(len(posted)) {
		t.Errorf("of %d webhooks %d were delivered and %d are dead", len(posted), delivered, len(dead))
	}
}

func succeeded(attempts []Attempt) bool {
	for _, a := range attempts {
		if a.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED {
			return true
		}
	}
	return false
}

// repeats counts requests that a sink accepted after it had accepted one of the same event.
type repeats struct{ afterUnknown, afterFailure int }

// checkCauses holds what the sinks saw against the ledger, attempt by attempt: each request has a leaf, each success and
// each refused status in the ledger is what the sink said, and of all requests of an event that were accepted only one
// may be recorded as a success in time: each other one is known to have ended in doubt.
func checkCauses(t *testing.T, ledger *Ledger, arrivals map[string]Arrival) (r repeats) {
	t.Helper()
	for event, arrival := range arrivals {
		leaves := make(map[uint32][]Attempt)
		for _, a := range ledger.Attempts[event] {
			leaves[a.Number] = append(leaves[a.Number], a)
		}
		answers := make(map[uint32][]Answer)
		accepted, afterUnknown := 0, 0
		for _, request := range arrival.Requests {
			answers[request.Attempt] = append(answers[request.Attempt], request.Answer)
			of := leaves[request.Attempt]
			if len(answers[request.Attempt]) > len(of) {
				t.Errorf("event %s arrived %d times as attempt %d, which has %d leaves", event, len(answers[request.Attempt]), request.Attempt, len(of))
				continue
			}
			if request.Answer != Accepted && request.Answer != TooLate {
				continue
			}
			accepted++
			if successesInTime(of) == 0 && endedUnknown(of) {
				afterUnknown++
			}
		}
		if n := successesInTime(ledger.Attempts[event]); n > 1 {
			t.Errorf("event %s was delivered %d times with success", event, n)
		}
		if accepted > 1 {
			r.afterUnknown += min(afterUnknown, accepted-1)
			r.afterFailure += max(0, accepted-1-afterUnknown)
		}
		checkSaid(t, event, ledger.Attempts[event], answers)
	}
	return r
}

// checkSaid fails if the ledger has a success that the sink did not give, or a status that it did not send.
func checkSaid(t *testing.T, event string, attempts []Attempt, answers map[uint32][]Answer) {
	t.Helper()
	for _, a := range attempts {
		var said, refused bool
		for _, answer := range answers[a.Number] {
			said = said || answer == Accepted || answer == TooLate
			refused = refused || answer == Refused
		}
		if a.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED && !said {
			t.Errorf("attempt %d of event %s is recorded as a success, and the sink accepted no such request", a.Number, event)
		}
		if a.Failure == leafv1.Failure_FAILURE_STATUS && !refused {
			t.Errorf("attempt %d of event %s is recorded as refused, and the sink refused no such request", a.Number, event)
		}
	}
}

// successesInTime counts the attempts that closed their delivery. One that a node finished after others had taken it for dead
// did not, and says so.
func successesInTime(leaves []Attempt) (n int) {
	for _, a := range leaves {
		if a.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED && !a.Late {
			n++
		}
	}
	return n
}

func endedUnknown(leaves []Attempt) bool {
	for _, a := range leaves {
		if a.Outcome == leafv1.Outcome_OUTCOME_UNKNOWN {
			return true
		}
	}
	return false
}

// deadEvents lists all dead letters through the API, by event.
func deadEvents(t *testing.T, api API) map[string]bool {
	t.Helper()
	dead := make(map[string]bool)
	for token := ""; ; {
		var page struct {
			DeadLetters   []struct{ EventID, Diagnosis string }
			NextPageToken string
		}
		api.Call(t, "DeliveryService/ListDeadLetters", object{"pageSize": 1000, "pageToken": token}, &page)
		for _, d := range page.DeadLetters {
			if d.Diagnosis == "" {
				t.Errorf("the dead letter of event %s says nothing", d.EventID)
			}
			dead[d.EventID] = true
		}
		if token = page.NextPageToken; token == "" {
			return dead
		}
	}
}

// listedEvents is how many events of a storm are looked at through the API: those with the most attempts among more.
const listedEvents = 50

// checkListed fails unless the API lists every attempt of a sample of events in order, each with its reason.
func checkListed(t *testing.T, r *Random, api API, posted []Posted, ledger *Ledger) {
	t.Helper()
	for range listedEvents {
		event := posted[r.IntN(len(posted))].EventID
		for range 10 {
			if other := posted[r.IntN(len(posted))].EventID; len(ledger.Attempts[other]) > len(ledger.Attempts[event]) {
				event = other
			}
		}
		var page struct {
			Attempts []struct {
				Number                      uint32
				Outcome, Failure, Diagnosis string
				Late                        bool
			}
		}
		api.Call(t, "DeliveryService/ListAttempts", object{"eventId": event, "pageSize": 1000}, &page)
		if len(page.Attempts) != len(ledger.Attempts[event]) {
			t.Errorf("event %s has %d attempts, and %d are listed", event, len(ledger.Attempts[event]), len(page.Attempts))
		}
		last := uint32(0)
		for _, a := range page.Attempts {
			if good := a.Outcome == "OUTCOME_SUCCEEDED"; good != (a.Failure == "") || good != (a.Diagnosis == "") {
				t.Errorf("attempt %d of event %s has outcome %s, failure %q, diagnosis %q", a.Number, event, a.Outcome, a.Failure, a.Diagnosis)
			}
			switch {
			case !a.Late && a.Number == last+1:
				last++
			case a.Late && a.Number <= last+1: // before or after the attempt of unknown end by which others took it over
			default:
				t.Errorf("attempt %d of event %s is listed after attempt %d", a.Number, event, last)
			}
		}
	}
}
