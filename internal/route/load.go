package route

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/filter"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/jsonpath"
	"github.com/kapsel-dev/kapsel/internal/schema"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/store"
)

// The purposes that bind a signing secret's ciphertext to its row, beside the tenant.
const (
	EndpointSecretPurpose    = "endpoint_secret"
	DestinationSecretPurpose = "destination_secret"
)

const (
	defaultDedupWindow = 24 * time.Hour
	endpointEnabled    = "enabled"
	// tenantActive is the only state of a tenant in which anything is taken in or delivered.
	tenantActive = "active"
	// tenantDeleting has no endpoints here; its destinations hold what is left until it is cancelled.
	tenantDeleting = "deleting"
)

// load reads the whole configuration. A row that cannot be compiled makes only its own endpoint or destination
// unusable: it is marked as broken, and named in problems. Filters that last had already are not compiled again.
func load(ctx context.Context, db *store.DB, keys *secret.Keyring, last *Snapshot) (snapshot *Snapshot, problems []error, err error) {
	endpointRows, err1 := db.RouteEndpoints(ctx, db.Engine())
	endpointSecretRows, err2 := db.RouteEndpointSecrets(ctx, db.Engine())
	destinationRows, err3 := db.RouteDestinations(ctx, db.Engine())
	destinationSecretRows, err4 := db.RouteDestinationSecrets(ctx, db.Engine())
	removedIDs, err5 := db.RouteRemovedDestinations(ctx, db.Engine())
	credentialRows, err6 := db.RouteDestinationCredentials(ctx, db.Engine())
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return nil, nil, fmt.Errorf("read routes: %w", err)
	}

	secrets := make(map[uuid.UUID][][]byte)
	unreadable := make(map[uuid.UUID]bool) // endpoints and destinations of which a secret cannot be read
	for _, row := range endpointSecretRows {
		plain, err := keys.Unseal(row.Ciphertext, secret.AssociatedData(row.TenantID, row.SecretID, EndpointSecretPurpose))
		if err != nil {
			problems = append(problems, fmt.Errorf("secret of endpoint %s: %w", id.Endpoint.Text(row.EndpointID), err))
			unreadable[row.EndpointID] = true
			continue
		}
		secrets[row.EndpointID] = append(secrets[row.EndpointID], plain.Reveal())
	}
	for _, row := range destinationSecretRows {
		plain, err := keys.Unseal(row.Ciphertext, secret.AssociatedData(row.TenantID, row.SecretID, DestinationSecretPurpose))
		if err != nil {
			problems = append(problems, fmt.Errorf("secret of destination %s: %w", id.Destination.Text(row.DestinationID), err))
			unreadable[row.DestinationID] = true
			continue
		}
		secrets[row.DestinationID] = append(secrets[row.DestinationID], plain.Reveal())
	}

	opened, unopened := openCredentials(credentialRows, keys)
	problems = append(problems, unopened...)

	snapshot = &Snapshot{
		endpoints:    make(map[uuid.UUID]*Endpoint, len(endpointRows)),
		destinations: make(map[uuid.UUID]*Destination, len(destinationRows)),
		removed:      make(map[uuid.UUID]bool, len(removedIDs)),
	}
	for _, destinationID := range removedIDs {
		snapshot.removed[destinationID] = true
	}
	for _, row := range endpointRows {
		endpoint, err := compileEndpoint(row, secrets[row.EndpointID], last.Endpoint(row.EndpointID))
		if err == nil && unreadable[row.EndpointID] {
			err = errUnreadableSecret
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("endpoint %s: %w", id.Endpoint.Text(row.EndpointID), err))
			// Its sources are asked to come again, and not told that it is gone.
			endpoint = &Endpoint{TenantID: row.TenantID, ID: row.EndpointID, Enabled: row.State == endpointEnabled, Suspended: row.TenantState != tenantActive, Broken: err.Error()}
		}
		snapshot.endpoints[endpoint.ID] = endpoint
	}
	for _, row := range destinationRows {
		destination, err := compileDestination(row, secrets[row.DestinationID], last.Destination(row.DestinationID))
		if err == nil && unreadable[row.DestinationID] {
			err = errUnreadableSecret
		}
		if err == nil {
			err = compileOutbound(destination, row, opened[row.DestinationID])
		}
		if row.TenantState == tenantDeleting { // its secrets go first
			destination = brokenDestination(row, errDeleting)
		} else if err != nil {
			problems = append(problems, fmt.Errorf("destination %s: %w", id.Destination.Text(row.DestinationID), err))
			// Its deliveries are held, never sent in another way than was asked for.
			destination = brokenDestination(row, err)
		}
		snapshot.destinations[destination.ID] = destination
		if row.Listens {
			destination.Listens, destination.Active, destination.Ordering = destination.Active, false, Ordering{}
			snapshot.listen(destination, row.ListenedEndpointIds)
		} else if endpoint := snapshot.endpoints[destination.EndpointID]; endpoint != nil {
			endpoint.Destinations = append(endpoint.Destinations, destination)
		}
		if !destination.Active {
			snapshot.inactive = append(snapshot.inactive, destination.ID)
		}
	}
	return snapshot, problems, nil
}

// listen adds a listening destination to its endpoints: those that it names, or all of its tenant.
func (s *Snapshot) listen(destination *Destination, endpointIDs []uuid.UUID) {
	for _, endpointID := range endpointIDs {
		if endpoint := s.endpoints[endpointID]; endpoint != nil && endpoint.TenantID == destination.TenantID {
			endpoint.Destinations = append(endpoint.Destinations, destination)
		}
	}
	if len(endpointIDs) > 0 {
		return
	}
	for _, endpoint := range s.endpoints {
		if endpoint.TenantID == destination.TenantID {
			endpoint.Destinations = append(endpoint.Destinations, destination)
		}
	}
}

func compileEndpoint(row store.RouteEndpointsRow, secrets [][]byte, last *Endpoint) (*Endpoint, error) {
	var verification kapselv1.Verification
	var dedup kapselv1.Deduplication
	var eventType kapselv1.EventTypeSource
	if err := errors.Join(decode(row.Verification, &verification), decode(row.Deduplication, &dedup),
		decode(row.EventTypeSource, &eventType)); err != nil {
		return nil, err
	}
	config := SignatureConfig(&verification)
	verifier, err := signature.NewVerifier(config, secrets)
	if err != nil {
		return nil, err
	}
	compiled, err := compileSchema(row.JsonSchema, last)
	if err != nil {
		return nil, err
	}
	endpoint := &Endpoint{
		TenantID: row.TenantID, ID: row.EndpointID,
		Enabled:      row.State == endpointEnabled,
		Suspended:    row.TenantState != tenantActive,
		Preset:       config.Preset,
		Verifier:     verifier,
		RequireJSON:  row.PayloadFormat == "json",
		Schema:       compiled,
		MaxBodyBytes: int(row.MaxBodyBytes),
		Limits: Limits{
			PerSecond: int(orZero(row.IngestPerSecond)), Burst: int(orZero(row.IngestBurst)),
			PerDay: orZero(row.IngestPerDay), BytesPerDay: orZero(row.IngestBytesPerDay),
		},
		Dedup: Dedup{Window: durationOr(dedup.Window, defaultDedupWindow)},
	}
	if row.TenantMaxBodyBytes != nil {
		endpoint.MaxBodyBytes = min(endpoint.MaxBodyBytes, int(*row.TenantMaxBodyBytes))
	}
	if endpoint.Limits.BytesPerDay > 0 { // a larger one would never fit
		endpoint.MaxBodyBytes = int(min(int64(endpoint.MaxBodyBytes), endpoint.Limits.BytesPerDay))
	}
	if endpoint.Limits.PerSecond == 0 {
		endpoint.Limits.Burst = 0
	} else if endpoint.Limits.Burst == 0 {
		endpoint.Limits.Burst = endpoint.Limits.PerSecond
	}
	switch dedup.Source {
	case kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_HEADER:
		endpoint.Dedup.Source, endpoint.Dedup.Name = DedupHeader, http.CanonicalHeaderKey(dedup.Header)
	case kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_JSON_PATH:
		endpoint.Dedup.Source, endpoint.Dedup.Path = DedupJSONPath, jsonpath.Parse(dedup.JsonPath)
	case kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_BODY_HASH:
		endpoint.Dedup.Source = DedupBodyHash
	case kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_NONE:
		endpoint.Dedup.Source = DedupNone
	default:
		endpoint.Dedup.Source = DedupAuto
	}
	switch eventType.Kind {
	case kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_HEADER:
		endpoint.EventType = EventType{Source: EventTypeHeader, Name: http.CanonicalHeaderKey(eventType.Header)}
	case kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_JSON_PATH:
		endpoint.EventType = EventType{Source: EventTypeJSONPath, Path: jsonpath.Parse(eventType.JsonPath)}
	case kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_NONE:
		endpoint.EventType = EventType{Source: EventTypeNone}
	}
	return endpoint, nil
}

// compileSchema compiles a stored schema, unless the last snapshot has it already. Nil: there is none.
func compileSchema(text string, last *Endpoint) (*schema.Schema, error) {
	if text == "" {
		return nil, nil
	}
	if last != nil && last.Schema != nil && last.Schema.Text() == text {
		return last.Schema, nil
	}
	return schema.Compile(text)
}

// SignatureConfig is the verification of an endpoint as package signature takes it.
func SignatureConfig(v *kapselv1.Verification) signature.Config {
	config := signature.Config{Preset: v.GetPreset(), Tolerance: v.GetTolerance().AsDuration(), SignedURL: v.GetSignedUrl()}
	if config.Preset == "" {
		config.Preset = signature.PresetNone
	}
	if g := v.GetGeneric(); g != nil {
		config.Header, config.Prefix, config.Content = g.Header, g.Prefix, g.Content
		config.TimestampHeader = g.TimestampHeader
		if g.Encoding == kapselv1.SignatureEncoding_SIGNATURE_ENCODING_BASE64 {
			config.Encoding = signature.Base64
		}
		switch g.Algorithm {
		case kapselv1.SignatureAlgorithm_SIGNATURE_ALGORITHM_HMAC_SHA1:
			config.Algorithm = signature.HMACSHA1
		case kapselv1.SignatureAlgorithm_SIGNATURE_ALGORITHM_HMAC_SHA512:
			config.Algorithm = signature.HMACSHA512
		}
	}
	return config
}

func compileDestination(row store.RouteDestinationsRow, secrets [][]byte, last *Destination) (*Destination, error) {
	var retry kapselv1.RetryPolicy
	var ordering kapselv1.Ordering
	if err := decode(row.RetryPolicy, &retry); err != nil {
		return nil, err
	}
	if row.Ordering != nil {
		if err := decode(row.Ordering, &ordering); err != nil {
			return nil, err
		}
	}
	events, err := compileFilter(row.Filter, last)
	if err != nil {
		return nil, err
	}
	signer, names, err := compileSigning(row.Signing, secrets)
	if err != nil {
		return nil, err
	}
	destination := &Destination{
		TenantID: row.TenantID, ID: row.DestinationID, EndpointID: row.EndpointID,
		URL:    row.URL,
		Active: row.State == "enabled" && row.TenantState == tenantActive,
		Signer: signer, SignatureHeaders: names,
		ForwardAll:     slices.Contains(row.ForwardedHeaders, "*"),
		ConnectTimeout: time.Duration(row.ConnectTimeoutMs) * time.Millisecond,
		Timeout:        time.Duration(row.TimeoutMs) * time.Millisecond,
		MaxInFlight:    int(row.MaxInFlight),
		Retry:          compileRetry(&retry),
		Ordering:       compileOrdering(&ordering),
		UpdatedAt:      row.UpdatedAt,
		Filter:         events,
	}
	if row.RatePerSecond != nil {
		destination.RatePerSecond = int(*row.RatePerSecond)
	}
	for _, name := range row.ForwardedHeaders {
		destination.Forwarded = append(destination.Forwarded, http.CanonicalHeaderKey(name))
	}
	return destination, nil
}

// brokenDestination stands for one that could not be compiled. Its events still wait for it, those that its filter takes
// if that can be read.
func brokenDestination(row store.RouteDestinationsRow, cause error) *Destination {
	events, err := compileFilter(row.Filter, nil)
	if err != nil {
		var stored kapselv1.Filter
		if decode(row.Filter, &stored) != nil {
			stored.Reset()
		}
		events = filter.Types(stored.EventTypes)
	}
	return &Destination{
		TenantID: row.TenantID, ID: row.DestinationID, EndpointID: row.EndpointID,
		URL: row.URL, Retry: compileRetry(&kapselv1.RetryPolicy{}), Filter: events, Broken: cause.Error(), UpdatedAt: row.UpdatedAt,
	}
}

// compileFilter compiles a stored filter, unless the last snapshot has its expression already: configuration is read every
// few seconds, and a compiler run for each destination would be felt.
func compileFilter(stored []byte, last *Destination) (*filter.Filter, error) {
	var given kapselv1.Filter
	if err := decode(stored, &given); err != nil {
		return nil, err
	}
	if last != nil && last.Filter.Expression() == given.Expression {
		return last.Filter.With(given.EventTypes), nil
	}
	return filter.New(given.EventTypes, given.Expression)
}

func compileOrdering(o *kapselv1.Ordering) Ordering {
	switch key := o.GetKey().(type) {
	case *kapselv1.Ordering_Header:
		return Ordering{Header: http.CanonicalHeaderKey(key.Header)}
	case *kapselv1.Ordering_JsonPath:
		return Ordering{JSONPath: jsonpath.Parse(key.JsonPath)}
	}
	return Ordering{}
}

// Defaults of a retry policy: the schedule that Standard Webhooks recommends, 10 attempts over about 75 hours.
var defaultSchedule = []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}

const (
	defaultFactor      = 2.0
	defaultCap         = 24 * time.Hour
	defaultJitter      = 0.1
	defaultMaxAttempts = 10
)

func compileRetry(p *kapselv1.RetryPolicy) RetryPolicy {
	policy := RetryPolicy{
		Base:        p.GetBase().AsDuration(),
		Factor:      p.GetFactor(),
		Cap:         durationOr(p.GetCap(), defaultCap),
		Jitter:      defaultJitter,
		MaxAttempts: int(p.GetMaxAttempts()),
		MaxAge:      p.GetMaxAge().AsDuration(),
	}
	if p.Jitter != nil {
		policy.Jitter = p.GetJitter()
	}
	if policy.Factor == 0 {
		policy.Factor = defaultFactor
	}
	for _, wait := range p.GetSchedule() {
		policy.Schedule = append(policy.Schedule, wait.AsDuration())
	}
	if len(policy.Schedule) == 0 && policy.Base == 0 {
		policy.Schedule = defaultSchedule
	}
	if policy.MaxAttempts == 0 {
		policy.MaxAttempts = defaultMaxAttempts
		if len(policy.Schedule) > 0 {
			policy.MaxAttempts = len(policy.Schedule) + 1
		}
	}
	for _, status := range p.GetFatalStatuses() {
		policy.FatalStatuses = append(policy.FatalStatuses, int(status))
	}
	return policy
}

func orZero[T any](value *T) (zero T) {
	if value == nil {
		return zero
	}
	return *value
}

func durationOr(d *durationpb.Duration, fallback time.Duration) time.Duration {
	if d == nil {
		return fallback
	}
	return d.AsDuration()
}

func decode(data []byte, m proto.Message) error {
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, m); err != nil {
		return fmt.Errorf("stored %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return nil
}
