package delivery

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
)

// judge decides what follows attempt number n of a delivery whose event is age old. It is pure: the same inputs give the
// same verdict, jitter included (rnd in [0,1) is passed in).
func judge(p route.RetryPolicy, a *ledger.Attempt, n int, age time.Duration, rnd float64, now time.Time) ledger.Verdict {
	verdict := follow(p, a, n, age, rnd, now)
	switch {
	case a.StatusCode == http.StatusGone:
		verdict.Disable = ledger.Disable{Reason: kapselv1.DisableReason_DISABLE_REASON_GONE, Detail: "it answered 410 Gone: resume it if that was a mistake, else delete it"}
	case a.Failure == leafv1.Failure_FAILURE_CONFIGURATION:
		verdict.Disable = ledger.Disable{Reason: kapselv1.DisableReason_DISABLE_REASON_CONFIGURATION, Detail: a.Diagnosis}
	}
	return verdict
}

// follow decides what becomes of the delivery.
func follow(p route.RetryPolicy, a *ledger.Attempt, n int, age time.Duration, rnd float64, now time.Time) ledger.Verdict {
	switch {
	case a.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED:
		return ledger.Verdict{Delivered: true}
	case a.StatusCode == http.StatusGone || slices.Contains(p.FatalStatuses, a.StatusCode):
		return dead(leafv1.DeadLetterReason_DEAD_LETTER_REASON_FATAL_STATUS, fmt.Sprintf("status %d ends the delivery", a.StatusCode), a)
	case n >= p.MaxAttempts:
		return dead(leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXHAUSTED, fmt.Sprintf("all %d attempts failed", n), a)
	}
	wait := backoff(p, n, rnd)
	wait = max(wait, a.RetryAfter)
	if a.Outcome == leafv1.Outcome_OUTCOME_UNKNOWN {
		wait = 0 // nothing is known against the destination: it was our node that was lost
	}
	if p.MaxAge > 0 && age+wait > p.MaxAge {
		return dead(leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXPIRED, fmt.Sprintf("older than %v after %d attempts", p.MaxAge, n), a)
	}
	return ledger.Verdict{RetryAt: now.Add(wait)}
}

func dead(reason leafv1.DeadLetterReason, diagnosis string, last *ledger.Attempt) ledger.Verdict {
	if last.Diagnosis != "" {
		diagnosis += "; the last one: " + last.Diagnosis
	}
	return ledger.Verdict{Dead: reason, Diagnosis: diagnosis}
}

// backoff is the wait after attempt n (from 1): by schedule, else exponential and capped, with jitter added.
func backoff(p route.RetryPolicy, n int, rnd float64) time.Duration {
	var wait float64
	if len(p.Schedule) > 0 {
		wait = float64(p.Schedule[min(n, len(p.Schedule))-1])
	} else {
		wait = min(float64(p.Base)*math.Pow(p.Factor, float64(n-1)), float64(p.Cap))
	}
	return time.Duration(wait * (1 + p.Jitter*rnd))
}

// maxRetryAfter bounds what a destination may ask for.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads the hint of a 429 or 503: seconds or a date (RFC 9110 section 10.2.3), at most maxRetryAfter. What
// cannot be read is no hint.
func retryAfter(status int, header http.Header, now time.Time) time.Duration {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		return 0
	}
	text := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	if date, err := http.ParseTime(text); err == nil {
		return min(max(0, date.Sub(now)), maxRetryAfter)
	}
	return 0
}
