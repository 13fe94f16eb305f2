package limit

import (
	"fmt"
	"time"
)

// Kind is which limit a webhook is over.
type Kind int

// The kinds of limits.
const (
	Rate        Kind = iota // webhooks a second
	DayWebhooks             // webhooks a day
	DayBytes                // payload bytes a day
)

// Exceeded says that a tenant is over a limit, and when to come again.
type Exceeded struct {
	Kind Kind
	// Limit is the number that was exceeded, over all nodes.
	Limit int64
	// Remaining is what is left of it: less than the webhook asked for.
	Remaining int64
	// Wait is how long it takes until the webhook may come in.
	Wait time.Duration
}

// Window is the time that Limit is for.
func (e *Exceeded) Window() time.Duration {
	if e.Kind == Rate {
		return time.Second
	}
	return SecondsADay * time.Second
}

func (e *Exceeded) Error() string {
	switch e.Kind {
	case DayWebhooks:
		return fmt.Sprintf("the tenant may take in %d webhooks a day (UTC), and has: come again tomorrow, or ask the operator", e.Limit)
	case DayBytes:
		return fmt.Sprintf("the tenant may take in %d payload bytes a day (UTC), of which %d are left: come again tomorrow, or ask the operator", e.Limit, e.Remaining)
	default:
		return fmt.Sprintf("the tenant may take in %d webhooks a second: come again after the time in Retry-After", e.Limit)
	}
}
