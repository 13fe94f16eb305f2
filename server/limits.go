package server

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/limit"
)

// reasonOf says over which limit a webhook was: the rate passes by itself, a quota is the operator's to raise.
func reasonOf(exceeded *limit.Exceeded) kapselv1.ErrorReason {
	if exceeded.Kind == limit.Rate {
		return kapselv1.ErrorReason_ERROR_REASON_RATE_LIMITED
	}
	return kapselv1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED
}

// exceededProblem is the answer to a webhook over its tenant's limit.
func exceededProblem(exceeded *limit.Exceeded) *problem {
	return &problem{
		status: http.StatusTooManyRequests, reason: reasonOf(exceeded), detail: exceeded.Error(), retry: exceeded.Wait,
		policy: policyOf(exceeded), remaining: exceeded.Remaining,
	}
}

// policy is a limit as the RateLimit header fields name it (draft-ietf-httpapi-ratelimit-headers, structured fields).
type policy struct {
	name   string
	quota  int64
	unit   string // "": requests
	window time.Duration
}

func policyOf(exceeded *limit.Exceeded) policy {
	p := policy{name: "per-second", quota: exceeded.Limit, window: exceeded.Window()}
	switch exceeded.Kind {
	case limit.DayWebhooks:
		p.name = "per-day"
	case limit.DayBytes:
		p.name, p.unit = "bytes-per-day", "content-bytes"
	}
	return p
}

// set writes the fields: the policy, what is left of it, and in how many seconds that changes.
func (p policy) set(header http.Header, remaining int64, wait time.Duration) {
	unit := ""
	if p.unit != "" {
		unit = fmt.Sprintf(";qu=%q", p.unit)
	}
	header.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d%s;w=%d", p.name, p.quota, unit, int(p.window/time.Second)))
	header.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%s", p.name, remaining, wholeSeconds(wait)))
}

// wholeSeconds is a wait as Retry-After has it: rounded up, so that who waits so long has waited long enough.
func wholeSeconds(wait time.Duration) string {
	return strconv.Itoa(int(math.Ceil(wait.Seconds())))
}
