// Package ingest takes webhooks in: verify, check, find the deduplication key, commit, and only then a receipt.
//
// It is the first step of a webhook's way. Its invariants: no receipt before COMMIT returned; one key inside its window
// makes one event; correctly signed bytes are never dropped, even when they cannot be delivered; what waits in memory is
// bounded, and beyond the bound the source is told to come again.
package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"

	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/limit"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/store"
)

var (
	// ErrOverloaded says that as many webhooks wait for a commit, or to be looked into, as may: come again in a second.
	ErrOverloaded = errors.New("too many webhooks wait to be stored")
	// ErrUnavailable says that the database did not take the webhook in time. It may come again: if it was stored after
	// all, its deduplication key finds it.
	ErrUnavailable = errors.New("the database does not answer")
	// ErrRejected says that the database refused this webhook's data.
	ErrRejected = errors.New("the webhook cannot be stored")
)

// Webhook is what a source sent, verified or not.
type Webhook struct {
	Endpoint *route.Endpoint
	// Method and URL as signatures cover them: the URL that the source was given, with the request's query. Both may be
	// empty when the endpoint's Verifier does not say SignsURL.
	Method, URL string
	Header      http.Header
	// Body is kept: the caller must not change it afterwards.
	Body          []byte
	ReceivedAt    time.Time
	SourceAddress string
	// Trusted skips the provider's signature: the caller authenticated the source otherwise.
	Trusted bool
}

// verifiedByAPIKey stands in the place of a preset's name for an event that came with an API key.
const verifiedByAPIKey = "api-key"

// State of a webhook that was taken in.
type State string

// The states of a receipt.
const (
	Accepted     State = "accepted"
	DeadLettered State = "dead_lettered"
)

// Receipt says that an event is committed. For a duplicate it is the receipt of the first event.
type Receipt struct {
	EventID    uuid.UUID
	State      State
	Duplicate  bool
	ReceivedAt time.Time
}

// Ingest is the way in. Make it with New.
type Ingest struct {
	committer *Committer
	limits    *limit.Limiter
	looking   *semaphore.Weighted // by the bytes of payloads that are decoded
}

// New makes an Ingest whose events go through committer, as far as limits let them.
func New(committer *Committer, limits *limit.Limiter) *Ingest {
	return &Ingest{committer: committer, limits: limits, looking: newLooking()}
}

// Accept takes a webhook in and returns its receipt once it is committed. Errors are those of signature.Verifier.Verify,
// a *limit.Exceeded, and the ones of this package. A webhook that was not sent by the endpoint's source spends nothing of
// the tenant's limits.
func (in *Ingest) Accept(ctx context.Context, w Webhook) (Receipt, error) {
	preset := w.Endpoint.Preset
	if w.Trusted {
		preset = verifiedByAPIKey
	} else if err := w.Endpoint.Verifier.Verify(w.request(), w.ReceivedAt); err != nil {
		return Receipt{}, err
	}
	account, err := in.limits.Take(w.Endpoint.TenantID, &w.Endpoint.Limits, len(w.Body), w.ReceivedAt)
	if err != nil {
		return Receipt{}, err
	}
	var p *pending
	defer func() {
		if p == nil { // refused yet, or a panic
			account.Settle(limit.Failed, len(w.Body))
		}
	}()
	if p, err = in.decide(ctx, w, preset); err != nil {
		return Receipt{}, err
	}
	p.account = account
	return in.committer.commit(ctx, p)
}

func (w Webhook) request() signature.Request {
	return signature.Request{Method: w.Method, URL: w.URL, Header: w.Header, Body: w.Body}
}

// newPending decides all that is decided about a webhook before it is stored.
func newPending(w Webhook, preset string) *pending {
	event := &ledger.Event{
		TenantID: w.Endpoint.TenantID, ID: id.New(), EndpointID: w.Endpoint.ID,
		ReceivedAt: w.ReceivedAt, Body: w.Body, Headers: headerLines(w.Header),
		ContentType: w.Header.Get("Content-Type"), Preset: preset,
		BodySHA256: sha256.Sum256(w.Body),
	}
	if w.Endpoint.RequireJSON {
		event.Defect = jsonDefect(w.Body)
	}
	if w.Endpoint.Schema != nil && event.Defect == "" {
		event.Defect = w.Endpoint.Schema.Defect(w.Body)
	}
	event.Type = store.CleanText(eventType(w), maxEventTypeBytes)
	p := &pending{
		event: event, window: w.Endpoint.Dedup.Window, source: w.SourceAddress,
		done: make(chan outcome, 1),
	}
	if key := dedupKey(w, event.BodySHA256); key != "" {
		digest := sha256.Sum256([]byte(key))
		p.key, p.keyHash = store.CleanText(key, maxShownKeyBytes), digest[:keyHashBytes]
	}
	if event.Defect != "" {
		p.deliveries = []pendingDelivery{{id: id.New()}} // the duty to write its dead letter
		return p
	}
	p.fanOut(w)
	return p
}

// headerLines spells the headers as on the wire. The order of lines with different names has no meaning (RFC 9110
// section 5.3) and is not kept by HTTP/2 and Go; they are sorted by name. Those of one name keep their order.
func headerLines(header http.Header) []byte {
	names := make([]string, 0, len(header))
	size := 0
	for name, values := range header {
		names = append(names, name)
		for _, value := range values {
			size += len(name) + len(value) + 4
		}
	}
	slices.Sort(names)
	lines := make([]byte, 0, size)
	for _, name := range names {
		for _, value := range header[name] {
			lines = append(append(append(append(lines, name...), ": "...), value...), "\r\n"...)
		}
	}
	return lines
}

// outcome of a commit, for the request that waits. For a repeat it speaks of the first event of its key.
type outcome struct {
	eventID    uuid.UUID
	receivedAt time.Time
	defective  bool
	duplicate  bool
	err        error
}

// pending is an event on its way to the database.
type pending struct {
	event      *ledger.Event
	deliveries []pendingDelivery
	key        string
	keyHash    []byte // nil: no deduplication
	window     time.Duration
	source     string
	account    *limit.Account // of the tenant: it is owed the outcome
	done       chan outcome
	answered   bool
}

type pendingDelivery struct {
	id          uuid.UUID
	destination *route.Destination // nil: the event has a defect
	orderKey    []byte             // hash of the key that the destination orders it by; nil: it is not ordered
	leased      bool
}

// answer tells the one who waits what became of p. Only the first answer counts.
func (p *pending) answer(o outcome) {
	if p.answered {
		return
	}
	p.answered = true
	if p.account != nil {
		p.account.Settle(o.use(), len(p.event.Body))
	}
	p.done <- o
}

// use is what an outcome costs the tenant.
func (o outcome) use() limit.Outcome {
	switch {
	case o.err != nil:
		return limit.Failed
	case o.duplicate:
		return limit.Repeated
	default:
		return limit.Stored
	}
}

func (p *pending) bytes() int64 { return int64(len(p.event.Body) + len(p.event.Headers)) }

// stored is the outcome when p's event is the first of its key.
func (p *pending) stored() outcome {
	return outcome{eventID: p.event.ID, receivedAt: p.event.ReceivedAt, defective: p.event.Defect != ""}
}

func (o outcome) receipt() (Receipt, error) {
	if o.err != nil {
		return Receipt{}, fmt.Errorf("store event: %w", o.err)
	}
	state := Accepted
	if o.defective {
		state = DeadLettered
	}
	return Receipt{EventID: o.eventID, State: state, Duplicate: o.duplicate, ReceivedAt: o.receivedAt}, nil
}

// jobs are the deliveries that this node leased to itself.
func (p *pending) jobs(leaseEnds time.Time) []delivery.Job {
	var jobs []delivery.Job
	for _, d := range p.deliveries {
		if !d.leased {
			continue
		}
		job := delivery.Job{
			Duty:        ledger.Duty{Event: p.event, DeliveryID: d.id},
			Destination: d.destination, LeaseEnds: leaseEnds,
		}
		if d.destination != nil {
			job.DestinationID = d.destination.ID
		}
		jobs = append(jobs, job)
	}
	return jobs
}
