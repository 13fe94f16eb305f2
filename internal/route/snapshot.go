// Package route holds what intake and delivery need to know of the configuration: endpoints with their compiled
// verifiers, destinations with their signers, filters and retry policies.
//
// It is an immutable snapshot, swapped whole: the hot path reads a pointer and never the database. Table rebuilds it when
// PostgreSQL notifies of a change, and by polling in case a notice was lost.
package route

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/signature"
)

// Snapshot is the configuration at one moment. It is never changed.
type Snapshot struct {
	endpoints    map[uuid.UUID]*Endpoint
	destinations map[uuid.UUID]*Destination
	inactive     []uuid.UUID
}

// Endpoint returns the endpoint with that id, nil when there is none.
func (s *Snapshot) Endpoint(id uuid.UUID) *Endpoint { return s.endpoints[id] }

// Destination returns the destination with that id, nil when there is none.
func (s *Snapshot) Destination(id uuid.UUID) *Destination { return s.destinations[id] }

// InactiveDestinations are the ids of those that are paused or disabled: their deliveries are held.
func (s *Snapshot) InactiveDestinations() []uuid.UUID { return s.inactive }

// Endpoint says how to take a webhook in.
type Endpoint struct {
	TenantID, ID uuid.UUID
	// Enabled is false when the endpoint is disabled or its tenant suspended.
	Enabled bool
	// Preset is the name of the verification, as leaves record it.
	Preset   string
	Verifier *signature.Verifier
	// RequireJSON sends a payload that is not JSON to the dead letters.
	RequireJSON  bool
	MaxBodyBytes int
	Dedup        Dedup
	EventType    EventType
	// Destinations of this endpoint, in whatever state.
	Destinations []*Destination
}

// DedupSource says where the deduplication key stands.
type DedupSource int

// The sources of a deduplication key.
const (
	DedupAuto DedupSource = iota // Idempotency-Key, X-Idempotency-Key, then the provider's delivery id
	DedupHeader
	DedupJSONPath
	DedupBodyHash
	DedupNone
)

// Dedup says which webhooks are the same.
type Dedup struct {
	Source DedupSource
	// Name of the header, canonical, or the JSON path.
	Name string
	// Window for which a key is remembered.
	Window time.Duration
}

// EventTypeSource says where the event type stands.
type EventTypeSource int

// The sources of an event type.
const (
	EventTypeAuto EventTypeSource = iota // where the provider puts it
	EventTypeHeader
	EventTypeJSONPath
	EventTypeNone
)

// EventType says how to find an event's type.
type EventType struct {
	Source EventTypeSource
	// Name of the header, canonical, or the JSON path.
	Name string
}

// Destination says how to deliver.
type Destination struct {
	TenantID, ID, EndpointID uuid.UUID
	URL                      string
	// Active is false when the destination is paused or disabled: its deliveries wait in the queue.
	Active bool
	Signer *signature.Signer
	// Headers are added to each request.
	Headers http.Header
	// Forwarded names the original headers to pass on, canonical; ForwardAll passes on all that are safe to.
	Forwarded      []string
	ForwardAll     bool
	ConnectTimeout time.Duration
	Timeout        time.Duration
	MaxInFlight    int
	Retry          RetryPolicy
	eventTypes     []string
}

// Matches reports whether the destination takes events of that type. A pattern that ends in "*" stands for all types that
// begin so.
func (d *Destination) Matches(eventType string) bool {
	return len(d.eventTypes) == 0 || slices.ContainsFunc(d.eventTypes, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return pattern == eventType || open && strings.HasPrefix(eventType, prefix)
	})
}

// RetryPolicy says when a failed delivery is tried again. Zero values never occur: the loader fills in the defaults.
type RetryPolicy struct {
	// Schedule lists the waits before the second attempt, the third, and so on. It replaces Base, Factor and Cap.
	Schedule []time.Duration
	// The wait after attempt n is Base × Factor^(n-1), at most Cap.
	Base   time.Duration
	Factor float64
	Cap    time.Duration
	// Jitter spreads a wait: up to this part of it is added at random, 0 to 1.
	Jitter float64
	// MaxAttempts is the number of attempts, the first included, after which a delivery is given up.
	MaxAttempts int
	// MaxAge after which a delivery is given up, counted from its event's receipt. Zero: no such bound.
	MaxAge time.Duration
	// FatalStatuses end a delivery at once.
	FatalStatuses []int
}
