package delivery

import (
	"net/http"
	"testing"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
)

func TestRetryAfterIsReadInBothForms(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		status int
		text   string
		want   time.Duration
	}{
		{429, "7", 7 * time.Second},
		{503, "0", 0},
		{503, "Fri, 02 Jan 2026 03:05:05 GMT", time.Minute},
		{429, "Thu, 01 Jan 2026 00:00:00 GMT", 0},
		{429, "4294967295", maxRetryAfter},
		{429, "Fri, 02 Jan 2099 03:05:05 GMT", maxRetryAfter},
		{429, "99999999999999999999", 24 * time.Hour},
		{429, "-5", 0},
		{429, "soon", 0},
		{429, "", 0},
		{500, "7", 0},
		{200, "7", 0},
	} {
		if got := retryAfter(test.status, http.Header{"Retry-After": {test.text}}, now); got != test.want {
			t.Errorf("%d with %q: %v, want %v", test.status, test.text, got, test.want)
		}
	}
}

func TestHintLengthensAWaitAndNeverShortensIt(t *testing.T) {
	now := time.Now()
	policy := route.RetryPolicy{Base: time.Minute, Factor: 1, Cap: time.Minute, MaxAttempts: 5}
	for hint, want := range map[time.Duration]time.Duration{0: time.Minute, time.Second: time.Minute, time.Hour: time.Hour} {
		attempt := &ledger.Attempt{Outcome: leafv1.Outcome_OUTCOME_FAILED, StatusCode: 429, RetryAfter: hint}
		if got := judge(policy, attempt, 1, 0, 0, now).RetryAt.Sub(now); got != want {
			t.Errorf("hint %v: wait %v, want %v", hint, got, want)
		}
	}
}
