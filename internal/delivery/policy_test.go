package delivery

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
)

func failedWith(status int) *ledger.Attempt {
	return &ledger.Attempt{Outcome: leafv1.Outcome_OUTCOME_FAILED, Failure: leafv1.Failure_FAILURE_STATUS, StatusCode: status, Diagnosis: "it said no"}
}

func TestVerdictFollowsThePolicy(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	schedule := route.RetryPolicy{Schedule: []time.Duration{time.Second, 0, time.Minute}, MaxAttempts: 6}
	growing := route.RetryPolicy{Base: time.Second, Factor: 3, Cap: 20 * time.Second, MaxAttempts: 100}
	limited := route.RetryPolicy{Base: time.Minute, Factor: 2, Cap: time.Hour, MaxAttempts: 100, MaxAge: 10 * time.Minute}
	fatal := route.RetryPolicy{Base: time.Second, Factor: 2, Cap: time.Hour, MaxAttempts: 5, FatalStatuses: []int{400, 422}}
	succeeded := &ledger.Attempt{Outcome: leafv1.Outcome_OUTCOME_SUCCEEDED, StatusCode: 204}
	unknown := &ledger.Attempt{Outcome: leafv1.Outcome_OUTCOME_UNKNOWN, Failure: leafv1.Failure_FAILURE_WORKER_LOST}
	const (
		exhausted = leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXHAUSTED
		ended     = leafv1.DeadLetterReason_DEAD_LETTER_REASON_FATAL_STATUS
		expired   = leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXPIRED
	)
	for _, test := range []struct {
		name    string
		policy  route.RetryPolicy
		attempt *ledger.Attempt
		number  int
		age     time.Duration
		rnd     float64
		wait    time.Duration // when neither delivered nor dead
		dead    leafv1.DeadLetterReason
	}{
		{name: "success", policy: schedule, attempt: succeeded, number: 1},
		{name: "success at the last attempt", policy: schedule, attempt: succeeded, number: 6},
		{name: "success of an old event", policy: limited, attempt: succeeded, number: 9, age: time.Hour},
		{name: "first wait of the schedule", policy: schedule, attempt: failedWith(500), number: 1, wait: time.Second},
		{name: "a wait of nothing", policy: schedule, attempt: failedWith(500), number: 2, wait: 0},
		{name: "last wait of the schedule", policy: schedule, attempt: failedWith(500), number: 3, wait: time.Minute},
		{name: "beyond the schedule its last wait is repeated", policy: schedule, attempt: failedWith(500), number: 5, wait: time.Minute},
		{name: "exhausted", policy: schedule, attempt: failedWith(500), number: 6, dead: exhausted},
		{name: "beyond the number of attempts", policy: schedule, attempt: failedWith(500), number: 60, dead: exhausted},
		{name: "base", policy: growing, attempt: failedWith(500), number: 1, wait: time.Second},
		{name: "base by factor", policy: growing, attempt: failedWith(500), number: 3, wait: 9 * time.Second},
		{name: "capped", policy: growing, attempt: failedWith(500), number: 4, wait: 20 * time.Second},
		{name: "capped far beyond every number", policy: growing, attempt: failedWith(500), number: 99, wait: 20 * time.Second},
		{name: "young enough", policy: limited, attempt: failedWith(500), number: 1, age: 9 * time.Minute, wait: time.Minute},
		{name: "too old by the time of the retry", policy: limited, attempt: failedWith(500), number: 1, age: 9*time.Minute + time.Second, dead: expired},
		{name: "a status that ends it", policy: fatal, attempt: failedWith(422), number: 1, dead: ended},
		{name: "another status", policy: fatal, attempt: failedWith(401), number: 1, wait: time.Second},
		{name: "410 always ends it", policy: schedule, attempt: failedWith(410), number: 1, dead: ended},
		{name: "a status that ends it, at the last attempt", policy: fatal, attempt: failedWith(400), number: 5, dead: ended},
		{name: "a redirect is tried again", policy: fatal, attempt: failedWith(302), number: 1, wait: time.Second},
		{name: "no answer is tried again", policy: fatal, attempt: failedWith(0), number: 2, wait: 2 * time.Second},
		{name: "an unknown outcome is tried again at once", policy: limited, attempt: unknown, number: 3, rnd: 0.9, wait: 0},
		{name: "an unknown outcome counts", policy: schedule, attempt: unknown, number: 6, dead: exhausted},
		{name: "an unknown outcome of an event that is too old", policy: limited, attempt: unknown, number: 1, age: 11 * time.Minute, dead: expired},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := judge(test.policy, test.attempt, test.number, test.age, test.rnd, now)
			switch {
			case test.attempt == succeeded:
				if got != (ledger.Verdict{Delivered: true}) {
					t.Errorf("got %+v, want delivered", got)
				}
			case test.dead != 0:
				if got.Dead != test.dead || got.Delivered || !got.RetryAt.IsZero() {
					t.Errorf("got %+v, want a dead letter for %v", got, test.dead)
				}
				if got.Diagnosis == "" || !strings.Contains(got.Diagnosis, test.attempt.Diagnosis) {
					t.Errorf("diagnosis %q does not say what the last attempt came to", got.Diagnosis)
				}
			default:
				if got != (ledger.Verdict{RetryAt: now.Add(test.wait)}) {
					t.Errorf("got %+v, want a retry after %v", got, test.wait)
				}
			}
		})
	}
}

func drawPolicy(t *rapid.T) route.RetryPolicy {
	p := route.RetryPolicy{
		Factor:      rapid.Float64Range(1, 10).Draw(t, "factor"),
		Cap:         time.Duration(rapid.Int64Range(int64(10*time.Millisecond), int64(7*24*time.Hour)).Draw(t, "cap")),
		Jitter:      rapid.Float64Range(0, 1).Draw(t, "jitter"),
		MaxAttempts: rapid.IntRange(1, 100).Draw(t, "max attempts"),
	}
	if rapid.Bool().Draw(t, "by schedule") {
		for _, wait := range rapid.SliceOfN(rapid.Int64Range(0, int64(7*24*time.Hour)), 1, 100).Draw(t, "schedule") {
			p.Schedule = append(p.Schedule, time.Duration(wait))
		}
	} else {
		p.Base = time.Duration(rapid.Int64Range(int64(10*time.Millisecond), int64(24*time.Hour)).Draw(t, "base"))
	}
	if rapid.Bool().Draw(t, "bounded age") {
		p.MaxAge = time.Duration(rapid.Int64Range(int64(time.Second), int64(30*24*time.Hour)).Draw(t, "max age"))
	}
	p.FatalStatuses = rapid.SliceOfN(rapid.IntRange(300, 599), 0, 5).Draw(t, "fatal statuses")
	return p
}

func drawAttempt(t *rapid.T) *ledger.Attempt {
	a := &ledger.Attempt{Outcome: leafv1.Outcome(rapid.IntRange(1, 3).Draw(t, "outcome"))}
	if a.Outcome == leafv1.Outcome_OUTCOME_FAILED {
		a.StatusCode = rapid.SampledFrom([]int{0, 301, 400, 404, 410, 429, 500, 503, 599}).Draw(t, "status")
	}
	return a
}

// Whatever the policy, a verdict is exactly one thing, deliveries end, and a wait is within its bounds.
func TestEveryVerdictKeepsTheLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, a := drawPolicy(t), drawAttempt(t)
		n := rapid.IntRange(1, 120).Draw(t, "number")
		age := time.Duration(rapid.Int64Range(-int64(time.Second), int64(60*24*time.Hour)).Draw(t, "age"))
		rnd := rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "rnd")
		now := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "now"), 0)

		v := judge(p, a, n, age, rnd, now)
		if v != judge(p, a, n, age, rnd, now) {
			t.Fatal("the same inputs gave two verdicts")
		}
		is := 0
		for _, set := range []bool{v.Delivered, !v.RetryAt.IsZero(), v.Dead != 0} {
			if set {
				is++
			}
		}
		wantDisable := kapselv1.DisableReason_DISABLE_REASON_UNSPECIFIED
		if a.StatusCode == 410 {
			wantDisable = kapselv1.DisableReason_DISABLE_REASON_GONE
		}
		if v.Disable.Reason != wantDisable || (v.Disable.Detail != "") != (wantDisable != 0) || wantDisable != 0 && v.Dead == 0 {
			t.Fatalf("%+v after status %d", v, a.StatusCode)
		}
		if test := judgeTest(a); !test.RetryAt.IsZero() || test.Delivered != v.Delivered || test.Delivered == (test.Dead != 0) || test.Disable != v.Disable {
			t.Fatalf("a test with this result: %+v", test)
		}
		if is != 1 {
			t.Fatalf("%+v is not exactly one thing", v)
		}
		if v.Delivered != (a.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED) {
			t.Fatalf("%+v for outcome %v", v, a.Outcome)
		}
		if !v.Delivered && n >= p.MaxAttempts && v.Dead == 0 {
			t.Fatalf("attempt %d of %d failed, and %+v", n, p.MaxAttempts, v)
		}
		if v.RetryAt.IsZero() {
			return
		}
		wait := v.RetryAt.Sub(now)
		longest := p.Cap
		for _, scheduled := range p.Schedule {
			longest = max(longest, scheduled)
		}
		if wait < 0 || float64(wait) > float64(longest)*(1+p.Jitter)+1 {
			t.Fatalf("wait of %v, the longest one is %v with jitter %v", wait, longest, p.Jitter)
		}
		if p.MaxAge > 0 && age+wait > p.MaxAge {
			t.Fatalf("a retry at age %v, the largest is %v", age+wait, p.MaxAge)
		}
	})
}

func TestJitterOnlyLengthensAWaitAndOnlyByItsShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		n := rapid.IntRange(1, 120).Draw(t, "number")
		least, most := backoff(p, n, 0), backoff(p, n, math.Nextafter(1, 0))
		got := backoff(p, n, rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "rnd"))
		if got < least || got > most || float64(most) > float64(least+1)*(1+p.Jitter)+1 {
			t.Fatalf("got %v, between %v and %v wanted, jitter %v", got, least, most, p.Jitter)
		}
		if len(p.Schedule) == 0 && n > 1 && backoff(p, n-1, 0) > least {
			t.Fatalf("the wait after attempt %d is shorter than the one before", n)
		}
	})
}

// A hint makes a wait longer, never shorter, and stays within its bound and the largest age.
func TestHintOnlyLengthensAWait(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, a := drawPolicy(t), failedWith(503)
		p.MaxAttempts, p.MaxAge, p.FatalStatuses = 100, 0, nil
		n := rapid.IntRange(1, 99).Draw(t, "number")
		rnd := rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "rnd")
		hint := rapid.Uint64().Draw(t, "seconds")
		now := time.Unix(1_800_000_000, 0)
		a.RetryAfter = retryAfter(503, http.Header{"Retry-After": {strconv.FormatUint(hint, 10)}}, now)
		if a.RetryAfter < 0 || a.RetryAfter > maxRetryAfter || hint < 86400 && a.RetryAfter != time.Duration(hint)*time.Second {
			t.Fatalf("a hint of %d s became %v", hint, a.RetryAfter)
		}
		got := judge(p, a, n, 0, rnd, now).RetryAt.Sub(now)
		if want := max(backoff(p, n, rnd), a.RetryAfter); got != want {
			t.Fatalf("waits %v, want %v", got, want)
		}
	})
}

func TestSettingThatCannotBeHonouredDisables(t *testing.T) {
	a := &ledger.Attempt{Outcome: leafv1.Outcome_OUTCOME_FAILED, Failure: leafv1.Failure_FAILURE_CONFIGURATION, Diagnosis: "the key is malformed"}
	want := ledger.Disable{Reason: kapselv1.DisableReason_DISABLE_REASON_CONFIGURATION, Detail: a.Diagnosis}
	if got := judge(route.RetryPolicy{Base: time.Second, Factor: 2, Cap: time.Hour, MaxAttempts: 5}, a, 1, 0, 0, time.Now()); got.Disable != want {
		t.Errorf("got %+v, want %+v", got.Disable, want)
	}
}
