package proto_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

const (
	endpointID    = "ep_01h455vb4pex5vsknk084sn02q"
	destinationID = "dst_01h455vb4pex5vsknk084sn02q"
	eventID       = "evt_01h455vb4pex5vsknk084sn02q"
	attemptID     = "att_01h455vb4pex5vsknk084sn02q"
)

func TestSoundRequestsAreAccepted(t *testing.T) {
	stored := &kapselv1.Destination{
		Id: destinationID, EndpointId: endpointID, Url: "https://example.com/hooks?source=kapsel",
		State:         kapselv1.DestinationState_DESTINATION_STATE_DISABLED,
		DisableReason: kapselv1.DisableReason_DISABLE_REASON_GONE,
		CreateTime:    timestamppb.Now(), Etag: "W/1",
	}
	for name, request := range map[string]proto.Message{
		"endpoint of defaults": &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{}},
		"endpoint for GitHub": &kapselv1.CreateEndpointRequest{
			Endpoint: &kapselv1.Endpoint{
				DisplayName:   "Pushes to the shop",
				Verification:  &kapselv1.Verification{Preset: "github"},
				PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON,
				MaxBodyBytes:  10 << 20,
				Deduplication: &kapselv1.Deduplication{Window: durationpb.New(time.Hour)},
			},
			Secrets: []string{"It's a Secret to Everybody"},
		},
		"destination of defaults": &kapselv1.CreateDestinationRequest{
			Destination: &kapselv1.Destination{EndpointId: endpointID, Url: "http://localhost:8080"},
		},
		"destination sent back as it was read": &kapselv1.UpdateDestinationRequest{
			DestinationId: destinationID, Destination: stored,
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"url", "filter.event_types"}},
		},
		"retries by schedule": &kapselv1.RetryPolicy{
			Schedule: []*durationpb.Duration{durationpb.New(0), durationpb.New(time.Minute)}, Jitter: proto.Float64(0),
		},
		"retries by backoff": &kapselv1.RetryPolicy{
			Base: durationpb.New(time.Second), Factor: 1.5, Cap: durationpb.New(time.Hour), MaxAttempts: 100,
		},
		"empty webhook": &kapselv1.IngestRequest{EndpointId: endpointID},
		"webhook": &kapselv1.IngestRequest{
			EndpointId: endpointID, Payload: make([]byte, 10<<20),
			Headers: []*kapselv1.Header{{Name: "X-Empty"}, {Name: "Content-Type", Value: "text/plain; charset=ü"}},
		},
		"all events":          &kapselv1.ListEventsRequest{},
		"largest page":        &kapselv1.ListEventsRequest{PageSize: 1000},
		"proof by attempt":    &kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_AttemptId{AttemptId: attemptID}},
		"proof of first leaf": &kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_LeafIndex{}},
		"replay of all":       &kapselv1.ReplayDeadLettersRequest{Filter: &kapselv1.DeadLetterFilter{}},
	} {
		if err := protovalidate.Validate(request); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnsoundRequestsAreRefusedByTheFieldAtFault(t *testing.T) {
	destination := func(d *kapselv1.Destination) proto.Message {
		if d.EndpointId == "" {
			d.EndpointId = endpointID
		}
		if d.Url == "" {
			d.Url = "https://example.com"
		}
		return &kapselv1.CreateDestinationRequest{Destination: d}
	}
	for _, c := range []struct {
		name    string
		request proto.Message
		want    string // field path, or id of the message's rule
	}{
		{"no id", &kapselv1.GetEventRequest{}, "event_id"},
		{"id of another kind", &kapselv1.GetEventRequest{EventId: endpointID}, "event_id"},
		{"id in upper case", &kapselv1.GetEventRequest{EventId: strings.ToUpper(eventID)}, "event_id"},
		{"id beyond 128 bits", &kapselv1.GetEventRequest{EventId: "evt_81h455vb4pex5vsknk084sn02q"}, "event_id"},
		{"id and a newline", &kapselv1.GetEventRequest{EventId: eventID + "\n"}, "event_id"},
		{"page too large", &kapselv1.ListEventsRequest{PageSize: 1001}, "page_size"},
		{"negative page", &kapselv1.ListEventsRequest{PageSize: -1}, "page_size"},
		{"time backwards", &kapselv1.ListEventsRequest{Filter: &kapselv1.EventFilter{Received: &kapselv1.TimeRange{
			StartTime: timestamppb.New(time.Unix(2, 0)), EndTime: timestamppb.New(time.Unix(1, 0)),
		}}}, "filter.received"},
		{"state that does not exist", &kapselv1.ListEventsRequest{Filter: &kapselv1.EventFilter{
			States: []kapselv1.EventState{99},
		}}, "filter.states[0]"},
		{"payload too large", &kapselv1.IngestRequest{EndpointId: endpointID, Payload: make([]byte, 10<<20+1)}, "payload"},
		{"header that splits", &kapselv1.IngestRequest{EndpointId: endpointID, Headers: []*kapselv1.Header{
			{Name: "X-A", Value: "b\r\nX-C: d"},
		}}, "headers[0].value"},
		{"header name with a space", &kapselv1.IngestRequest{EndpointId: endpointID, Headers: []*kapselv1.Header{
			{Name: "X A"},
		}}, "headers[0].name"},
		{"empty batch", &kapselv1.IngestBatchRequest{}, "webhooks"},
		{"no endpoint", &kapselv1.CreateEndpointRequest{}, "endpoint"},
		{"generic settings for a provider", &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{
			Verification: &kapselv1.Verification{Preset: "github", Generic: &kapselv1.GenericSignature{}},
		}}, "endpoint.verification"},
		{"deduplication by no header", &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{
			Deduplication: &kapselv1.Deduplication{Source: kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_HEADER},
		}}, "endpoint.deduplication"},
		{"update of nothing named", &kapselv1.UpdateEndpointRequest{
			EndpointId: endpointID, Endpoint: &kapselv1.Endpoint{},
		}, "update_mask"},
		{"update of an output", &kapselv1.UpdateEndpointRequest{
			EndpointId: endpointID, Endpoint: &kapselv1.Endpoint{},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"create_time"}},
		}, "update_mask"},
		{"destination without URL", &kapselv1.CreateDestinationRequest{
			Destination: &kapselv1.Destination{EndpointId: endpointID},
		}, "create_destination.required"},
		{"destination of no endpoint", &kapselv1.CreateDestinationRequest{
			Destination: &kapselv1.Destination{Url: "https://example.com"},
		}, "create_destination.required"},
		{"destination made disabled", destination(&kapselv1.Destination{
			State: kapselv1.DestinationState_DESTINATION_STATE_DISABLED,
		}), "create_destination.state"},
		{"not HTTP", destination(&kapselv1.Destination{Url: "ftp://example.com"}), "destination.url"},
		{"user information", destination(&kapselv1.Destination{Url: "https://user:pass@example.com"}), "destination.url"},
		{"fragment", destination(&kapselv1.Destination{Url: "https://example.com/#a"}), "destination.url"},
		{"relative URL", destination(&kapselv1.Destination{Url: "/hooks"}), "destination.url"},
		{"timeout too long", destination(&kapselv1.Destination{
			Timeout: durationpb.New(31 * time.Second),
		}), "destination.timeout"},
		{"schedule and base", destination(&kapselv1.Destination{RetryPolicy: &kapselv1.RetryPolicy{
			Schedule: []*durationpb.Duration{durationpb.New(time.Second)}, Base: durationpb.New(time.Second),
		}}), "destination.retry_policy"},
		{"backoff that shrinks", destination(&kapselv1.Destination{RetryPolicy: &kapselv1.RetryPolicy{
			Base: durationpb.New(time.Second), Factor: 0.5,
		}}), "destination.retry_policy.factor"},
		{"success as fatal status", destination(&kapselv1.Destination{RetryPolicy: &kapselv1.RetryPolicy{
			FatalStatuses: []int32{200},
		}}), "destination.retry_policy.fatal_statuses[0]"},
		{"ordering by nothing", destination(&kapselv1.Destination{Ordering: &kapselv1.Ordering{}}), "destination.ordering.key"},
		{"proof of nothing", &kapselv1.GetInclusionProofRequest{}, "leaf"},
		{"proof by a short hash", &kapselv1.GetInclusionProofRequest{
			Leaf: &kapselv1.GetInclusionProofRequest_LeafHash{LeafHash: make([]byte, 20)},
		}, "leaf_hash"},
		{"sizes backwards", &kapselv1.GetConsistencyProofRequest{FromSize: 2, ToSize: proto.Int64(1)}, "consistency_proof.order"},
		{"replay without a filter", &kapselv1.ReplayDeadLettersRequest{}, "filter"},
		{"key without scopes", &kapselv1.CreateApiKeyRequest{ApiKey: &kapselv1.ApiKey{}}, "api_key.scopes"},
		{"key that has expired", &kapselv1.CreateApiKeyRequest{ApiKey: &kapselv1.ApiKey{
			Scopes:     []kapselv1.ApiKeyScope{kapselv1.ApiKeyScope_API_KEY_SCOPE_READ},
			ExpireTime: timestamppb.New(time.Now().Add(-time.Second)),
		}}, "api_key.expire_time"},
	} {
		err := protovalidate.Validate(c.request)
		var failure *protovalidate.ValidationError
		if !errors.As(err, &failure) {
			t.Errorf("%s: got %v, want a violation of %s", c.name, err, c.want)
			continue
		}
		var got []string
		for _, violation := range failure.Violations {
			got = append(got, protovalidate.FieldPathString(violation.Proto.GetField()), violation.Proto.GetRuleId())
		}
		if !slices.Contains(got, c.want) {
			t.Errorf("%s: got violations of %q, want %s", c.name, got, c.want)
		}
	}
}
