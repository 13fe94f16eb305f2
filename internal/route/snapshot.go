// Package route holds what intake and delivery need to know of the configuration: endpoints with their compiled
// verifiers, destinations with their signers, filters and retry policies.
//
// It is an immutable snapshot, swapped whole: the hot path reads a pointer and never the database. Table rebuilds it when
// PostgreSQL notifies of a change, and by polling in case a notice was lost.
package route

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/filter"
	"github.com/kapsel-dev/kapsel/internal/jsonpath"
	"github.com/kapsel-dev/kapsel/internal/schema"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

// Snapshot is the configuration at one moment. It is never changed.
type Snapshot struct {
	endpoints    map[uuid.UUID]*Endpoint
	destinations map[uuid.UUID]*Destination
	inactive     []uuid.UUID
	removed      map[uuid.UUID]bool
}

// Endpoint returns the endpoint with that id, nil when there is none.
func (s *Snapshot) Endpoint(id uuid.UUID) *Endpoint { return s.endpoints[id] }

// Destination returns the destination with that id, nil when there is none.
func (s *Snapshot) Destination(id uuid.UUID) *Destination { return s.destinations[id] }

// Removed reports whether the destination was deleted a short while ago: no newer snapshot will have it.
func (s *Snapshot) Removed(id uuid.UUID) bool { return s.removed[id] }

// InactiveDestinations are the ids of those that are not delivered to: their deliveries are held.
func (s *Snapshot) InactiveDestinations() []uuid.UUID { return s.inactive }

// ActiveDestinations are those that are delivered to.
func (s *Snapshot) ActiveDestinations() []*Destination {
	active := make([]*Destination, 0, len(s.destinations))
	for _, destination := range s.destinations {
		if destination.Active {
			active = append(active, destination)
		}
	}
	return active
}

// Endpoint says how to take a webhook in.
type Endpoint struct {
	TenantID, ID uuid.UUID
	Enabled      bool
	// Suspended says that the tenant is: nothing is taken in.
	Suspended bool
	// Broken says why nothing can be taken in, since its configuration or a secret cannot be used. What is not said here is then unknown.
	Broken string
	// Preset is the name of the verification, as leaves record it.
	Preset   string
	Verifier *signature.Verifier
	// RequireJSON sends a payload that is not JSON to the dead letters.
	RequireJSON bool
	// Schema sends a payload that violates it to the dead letters. Nil: there is none.
	Schema *schema.Schema
	// MaxBodyBytes is the smallest of what the endpoint, its tenant and the tenant's day allow.
	MaxBodyBytes int
	// Limits are its tenant's.
	Limits    Limits
	Dedup     Dedup
	EventType EventType
	// Destinations of this endpoint, in whatever state.
	Destinations []*Destination
}

// Limits are what a tenant may send in, over all nodes and endpoints. Zero means no limit.
type Limits struct {
	// PerSecond is a number of webhooks, and Burst how many may come at once above it: it is zero only if PerSecond is.
	PerSecond, Burst int
	// PerDay and BytesPerDay are webhooks and payload bytes a day (UTC).
	PerDay, BytesPerDay int64
}

// DedupSource says where the deduplication key stands.
type DedupSource int

// The sources of a deduplication key.
const (
	DedupAuto DedupSource = iota // the provider's delivery id if that is signed; else Idempotency-Key, X-Idempotency-Key, then that id
	DedupHeader
	DedupJSONPath
	DedupBodyHash
	DedupNone
)

// Dedup says which webhooks are the same.
type Dedup struct {
	Source DedupSource
	// Name of the header, canonical.
	Name string
	// Path of the JSON member.
	Path jsonpath.Path
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
	// Name of the header, canonical.
	Name string
	// Path of the JSON member.
	Path jsonpath.Path
}

// Destination says how to deliver.
type Destination struct {
	TenantID, ID, EndpointID uuid.UUID
	URL                      string
	// Active is false when the destination is paused or disabled, or its tenant suspended: its deliveries wait in the queue.
	Active bool
	// Listens says that it is a session of ListenService and gets its deliveries down a stream: it is never Active.
	Listens bool
	// Broken says which setting cannot be honoured, empty when all can: nothing may be sent then. Such a one is not Active.
	Broken string
	Signer *signature.Signer
	// SignatureHeaders are the names of the headers that the signature takes.
	SignatureHeaders SignatureHeaders
	// Headers are added to each request.
	Headers http.Header
	// Forwarded names the original headers to pass on, canonical; ForwardAll passes on all that are safe to.
	Forwarded      []string
	ForwardAll     bool
	ConnectTimeout time.Duration
	Timeout        time.Duration
	MaxInFlight    int
	// RatePerSecond is how many attempts a second may be made over all nodes. Zero: any number.
	RatePerSecond int
	Retry         RetryPolicy
	Ordering      Ordering
	// ClientTLS is how TLS is spoken. Nil: without a certificate, and by the system's authorities.
	ClientTLS *ClientTLS
	// ClientCredentials get the token that requests bear. Nil: they bear none.
	ClientCredentials *ClientCredentials
	// UpdatedAt is when these settings became what they are, by the database's clock.
	UpdatedAt time.Time
	// Filter says which events it gets. It is never nil in a snapshot.
	Filter *filter.Filter
}

// SignatureHeaders are the names of the headers that a signature takes, canonical.
type SignatureHeaders struct{ ID, Timestamp, Signature string }

// StandardHeaders are the names of Standard Webhooks.
var StandardHeaders = SignatureHeaders{ID: "Webhook-Id", Timestamp: "Webhook-Timestamp", Signature: "Webhook-Signature"}

// Ordering says by which key events are delivered one after the other. The zero value keeps no order.
type Ordering struct {
	// Header with the key, canonical; or else
	Header string
	// JSONPath of the key in the payload.
	JSONPath jsonpath.Path
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
