package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tenant"
)

// rpcs are all methods of the contract.
func rpcs() (methods []protoreflect.MethodDescriptor) {
	protoregistry.GlobalFiles.RangeFilesByPackage("kapsel.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				methods = append(methods, service.Methods().Get(j))
			}
		}
		return true
	})
	slices.SortFunc(methods, func(x, y protoreflect.MethodDescriptor) int {
		return strings.Compare(string(x.FullName()), string(y.FullName()))
	})
	return methods
}

func rpcName(method protoreflect.MethodDescriptor) string {
	return string(method.Parent().Name()) + "/" + string(method.Name())
}

// changes reports whether an rpc is declared to have side effects.
func changes(method protoreflect.MethodDescriptor) bool {
	options, _ := method.Options().(*descriptorpb.MethodOptions)
	return options.GetIdempotencyLevel() != descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// call is a request of an rpc that names what is a tenant's, and that works for the tenant itself.
type call struct {
	rpc     string
	request func(w world) proto.Message
}

// calls has each rpc, in an order in which all of them work for the owner: what ends something comes last.
var calls = []call{
	{"IngestService/Ingest", func(w world) proto.Message {
		return &kapselv1.IngestRequest{EndpointId: w.endpoint.Id, Payload: []byte("{}")}
	}},
	{"IngestService/IngestBatch", func(w world) proto.Message {
		return &kapselv1.IngestBatchRequest{Webhooks: []*kapselv1.IngestRequest{{EndpointId: w.endpoint.Id, Payload: []byte("{}")}}}
	}},
	{"EndpointService/CreateEndpoint", func(w world) proto.Message {
		return &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{}}
	}},
	{"EndpointService/GetEndpoint", func(w world) proto.Message { return &kapselv1.GetEndpointRequest{EndpointId: w.endpoint.Id} }},
	{"EndpointService/ListEndpoints", func(w world) proto.Message { return &kapselv1.ListEndpointsRequest{} }},
	{"EndpointService/UpdateEndpoint", func(w world) proto.Message {
		return &kapselv1.UpdateEndpointRequest{EndpointId: w.endpoint.Id, Endpoint: &kapselv1.Endpoint{DisplayName: "x"}, UpdateMask: mask("display_name")}
	}},
	{"EndpointService/RotateEndpointSecret", func(w world) proto.Message {
		return &kapselv1.RotateEndpointSecretRequest{EndpointId: w.endpoint.Id}
	}},
	{"DestinationService/CreateDestination", func(w world) proto.Message {
		return &kapselv1.CreateDestinationRequest{Destination: &kapselv1.Destination{EndpointId: w.endpoint.Id, Url: "https://example.com/"}}
	}},
	{"DestinationService/GetDestination", func(w world) proto.Message {
		return &kapselv1.GetDestinationRequest{DestinationId: w.destination.Id}
	}},
	{"DestinationService/ListDestinations", func(w world) proto.Message {
		return &kapselv1.ListDestinationsRequest{EndpointId: w.endpoint.Id}
	}},
	{"DestinationService/UpdateDestination", func(w world) proto.Message {
		return &kapselv1.UpdateDestinationRequest{DestinationId: w.destination.Id, Destination: &kapselv1.Destination{DisplayName: "x"}, UpdateMask: mask("display_name")}
	}},
	{"DestinationService/RotateDestinationSecret", func(w world) proto.Message {
		return &kapselv1.RotateDestinationSecretRequest{DestinationId: w.destination.Id}
	}},
	{"DestinationService/GetDestinationHealth", func(w world) proto.Message {
		return &kapselv1.GetDestinationHealthRequest{DestinationId: w.destination.Id}
	}},
	{"DestinationService/SendTest", func(w world) proto.Message {
		return &kapselv1.SendTestRequest{DestinationId: w.destination.Id}
	}},
	{"DestinationService/PauseDestination", func(w world) proto.Message {
		return &kapselv1.PauseDestinationRequest{DestinationId: w.destination.Id}
	}},
	{"DestinationService/ResumeDestination", func(w world) proto.Message {
		return &kapselv1.ResumeDestinationRequest{DestinationId: w.destination.Id}
	}},
	{"EventService/GetEvent", func(w world) proto.Message { return &kapselv1.GetEventRequest{EventId: w.event} }},
	{"EventService/ListEvents", func(w world) proto.Message {
		return &kapselv1.ListEventsRequest{Filter: &kapselv1.EventFilter{EndpointIds: []string{w.endpoint.Id}}}
	}},
	{"EventService/GetPayload", func(w world) proto.Message { return &kapselv1.GetPayloadRequest{EventId: w.event} }},
	{"EventService/WatchEvents", func(w world) proto.Message {
		return &kapselv1.WatchEventsRequest{Filter: &kapselv1.EventFilter{EndpointIds: []string{w.endpoint.Id}}}
	}},
	{"EventService/ReplayEvent", func(w world) proto.Message {
		return &kapselv1.ReplayEventRequest{EventId: w.event, DestinationIds: []string{w.destination.Id}}
	}},
	{"DeliveryService/GetDelivery", func(w world) proto.Message { return &kapselv1.GetDeliveryRequest{DeliveryId: w.delivery} }},
	{"DeliveryService/ListDeliveries", func(w world) proto.Message { return &kapselv1.ListDeliveriesRequest{EventId: w.event} }},
	{"DeliveryService/ListAttempts", func(w world) proto.Message {
		return &kapselv1.ListAttemptsRequest{Parent: &kapselv1.ListAttemptsRequest_DeliveryId{DeliveryId: w.delivery}}
	}},
	{"DeliveryService/GetAttempt", func(w world) proto.Message { return &kapselv1.GetAttemptRequest{AttemptId: w.attempt} }},
	{"DeliveryService/ListDeadLetters", func(w world) proto.Message {
		return &kapselv1.ListDeadLettersRequest{Filter: &kapselv1.DeadLetterFilter{EndpointIds: []string{w.endpoint.Id}}}
	}},
	{"DeliveryService/RetryDelivery", func(w world) proto.Message {
		return &kapselv1.RetryDeliveryRequest{DeliveryId: w.delivery}
	}},
	{"DeliveryService/ReplayDeadLetters", func(w world) proto.Message {
		return &kapselv1.ReplayDeadLettersRequest{Filter: &kapselv1.DeadLetterFilter{EndpointIds: []string{w.endpoint.Id}}}
	}},
	{"DeliveryService/GetReplay", func(w world) proto.Message { return &kapselv1.GetReplayRequest{ReplayId: w.replay} }},
	{"DeliveryService/ListReplays", func(w world) proto.Message { return &kapselv1.ListReplaysRequest{} }},
	{"DeliveryService/CancelReplay", func(w world) proto.Message { return &kapselv1.CancelReplayRequest{ReplayId: w.replay} }},
	{"DeliveryService/CancelDelivery", func(w world) proto.Message {
		return &kapselv1.CancelDeliveryRequest{DeliveryId: w.waiting}
	}},
	{"AttestationService/GetLog", func(w world) proto.Message { return &kapselv1.GetLogRequest{} }},
	{"AttestationService/GetTreeHead", func(w world) proto.Message { return &kapselv1.GetTreeHeadRequest{} }},
	{"AttestationService/ListTreeHeads", func(w world) proto.Message { return &kapselv1.ListTreeHeadsRequest{} }},
	{"AttestationService/WatchTreeHeads", func(w world) proto.Message { return &kapselv1.WatchTreeHeadsRequest{} }},
	{"AttestationService/GetInclusionProof", func(w world) proto.Message {
		return &kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_AttemptId{AttemptId: w.attempt}}
	}},
	{"AttestationService/GetConsistencyProof", func(w world) proto.Message {
		return &kapselv1.GetConsistencyProofRequest{FromSize: 1}
	}},
	{"AttestationService/GetProofPackage", func(w world) proto.Message {
		return &kapselv1.GetProofPackageRequest{Subject: &kapselv1.GetProofPackageRequest_AttemptId{AttemptId: w.attempt}, Wait: durationpb.New(5 * time.Second)}
	}},
	{"AttestationService/ExportProofPackages", func(w world) proto.Message {
		return &kapselv1.ExportProofPackagesRequest{Recorded: &kapselv1.TimeRange{StartTime: timestamppb.New(time.Now().Add(-time.Hour))}, EndpointId: w.endpoint.Id}
	}},
	{"AttestationService/SealLog", func(w world) proto.Message { return &kapselv1.SealLogRequest{} }},
	{"TenantService/CreateTenant", func(w world) proto.Message {
		return &kapselv1.CreateTenantRequest{Tenant: &kapselv1.Tenant{}}
	}},
	{"TenantService/GetTenant", func(w world) proto.Message { return &kapselv1.GetTenantRequest{TenantId: id.Tenant.Text(w.id)} }},
	{"TenantService/ListTenants", func(w world) proto.Message { return &kapselv1.ListTenantsRequest{} }},
	{"TenantService/UpdateTenant", func(w world) proto.Message {
		return &kapselv1.UpdateTenantRequest{TenantId: id.Tenant.Text(w.id), Tenant: &kapselv1.Tenant{DisplayName: "x"}, UpdateMask: mask("display_name")}
	}},
	{"TenantService/GetUsage", func(w world) proto.Message { return &kapselv1.GetUsageRequest{TenantId: id.Tenant.Text(w.id)} }},
	{"TenantService/CreateApiKey", func(w world) proto.Message {
		return &kapselv1.CreateApiKeyRequest{TenantId: id.Tenant.Text(w.id), ApiKey: &kapselv1.ApiKey{Scopes: []kapselv1.ApiKeyScope{kapselv1.ApiKeyScope_API_KEY_SCOPE_READ}}}
	}},
	{"TenantService/ListApiKeys", func(w world) proto.Message {
		return &kapselv1.ListApiKeysRequest{TenantId: id.Tenant.Text(w.id)}
	}},
	{"TenantService/ListAuditEntries", func(w world) proto.Message {
		return &kapselv1.ListAuditEntriesRequest{TenantId: id.Tenant.Text(w.id), ResourceId: w.endpoint.Id}
	}},
	{"TenantService/RevokeApiKey", func(w world) proto.Message { return &kapselv1.RevokeApiKeyRequest{ApiKeyId: w.spareKey} }},
	{"ListenService/Listen", func(w world) proto.Message {
		return &kapselv1.ListenRequest{EndpointIds: []string{w.endpoint.Id}}
	}},
	{"ListenService/Report", func(w world) proto.Message {
		return &kapselv1.ReportRequest{SessionId: w.session, AttemptId: w.listened, StartTime: timestamppb.Now(), Duration: durationpb.New(time.Second),
			Result: &kapselv1.ReportRequest_Answer{Answer: &kapselv1.ListenAnswer{StatusCode: 200, BodySha256: make([]byte, 32)}}}
	}},
	{"EventService/EraseEvent", func(w world) proto.Message { return &kapselv1.EraseEventRequest{EventId: w.event} }},
	{"DestinationService/DeleteDestination", func(w world) proto.Message {
		return &kapselv1.DeleteDestinationRequest{DestinationId: w.destination.Id}
	}},
	{"EndpointService/DeleteEndpoint", func(w world) proto.Message {
		return &kapselv1.DeleteEndpointRequest{EndpointId: w.spare.Id}
	}},
	{"TenantService/DeleteTenant", func(w world) proto.Message {
		return &kapselv1.DeleteTenantRequest{TenantId: id.Tenant.Text(w.id)}
	}},
}

// result is what a call came to: the first message, or the error, of a unary rpc or a stream.
type result struct {
	code string // "" for success
	text string
}

// streamPatience is how long a stream that has nothing to say is listened to.
const streamPatience = 700 * time.Millisecond

// invoke calls an rpc by its name, as anyone can with an HTTP client (Connect protocol, JSON).
func (r *rig) invoke(method protoreflect.MethodDescriptor, key string, request proto.Message) result {
	r.t.Helper()
	body := must(protojson.Marshal(request))(r.t)
	contentType := "application/json"
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	streams := method.IsStreamingServer() || method.IsStreamingClient()
	if streams {
		contentType = "application/connect+json"
		body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
		time.AfterFunc(streamPatience, cancel)
	}
	call := must(http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("%s/%s/%s", r.url, method.Parent().FullName(), method.Name()), bytes.NewReader(body)))(r.t)
	call.Header.Set("Content-Type", contentType)
	if key != "" {
		call.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := r.client.Do(call)
	if err != nil {
		if streams && ctx.Err() != nil {
			return result{text: "silence"}
		}
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	read, _ := io.ReadAll(response.Body) // what came of a stream before it was given up
	if !streams {
		if response.StatusCode == http.StatusOK {
			return result{text: string(read)}
		}
		return result{code: codeOf(r.t, read), text: string(read)}
	}
	var all strings.Builder
	for len(read) >= 5 && uint32(len(read)-5) >= binary.BigEndian.Uint32(read[1:]) {
		flags, message := read[0], read[5:5+binary.BigEndian.Uint32(read[1:])]
		if flags&2 != 0 {
			var end struct{ Error json.RawMessage }
			if json.Unmarshal(message, &end); len(end.Error) > 0 {
				return result{code: codeOf(r.t, end.Error), text: string(end.Error)}
			}
		}
		all.Write(message)
		read = read[5+len(message):]
	}
	return result{text: all.String()}
}

func codeOf(t *testing.T, answer []byte) string {
	t.Helper()
	var known struct{ Code string }
	if err := json.Unmarshal(answer, &known); err != nil || known.Code == "" {
		t.Fatalf("answer %q: %v", answer, err)
	}
	return known.Code
}

var anyID = regexp.MustCompile(`\b[a-z]{2,8}_[0-7][0-9a-hjkmnp-tv-z]{25}\b`)

// nobodys is the request with ids that nothing has, of the same kinds and the same age.
func nobodys(t *testing.T, request proto.Message) proto.Message {
	t.Helper()
	made := make(map[string]string)
	text := anyID.ReplaceAllStringFunc(string(must(protojson.Marshal(request))(t)), func(given string) string {
		if made[given] == "" {
			kind, _, _ := strings.Cut(given, "_")
			made[given] = id.Kind(kind).Text(id.New())
		}
		return made[given]
	})
	other := request.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal([]byte(text), other); err != nil {
		t.Fatal(err)
	}
	return other
}

var volatile = regexp.MustCompile(`"(etag|[a-zA-Z]*[tT]ime|secret|value|debug|hint|resumeToken|nextPageToken|note|rootHash|treeSize|hashes|package|text)":\s*("[^"]*"|\{[^}]*\})`)

// echoed is what an answer repeats of its request.
var echoed = regexp.MustCompile(`"filter":\s*\{[^}]*\}`)

// comparable leaves out of an answer what differs from one to the next.
func comparable(r result) string {
	return r.code + " " + volatile.ReplaceAllString(anyID.ReplaceAllString(r.text, "<id>"), "$1")
}

// Each rpc, with a key that may do all in its own tenant, and ids of another: the answer must be the one that ids of
// nothing get, for the price of as many queries, and change nothing. It must not show anything of the other tenant's.
func TestNoRPCReachesAnotherTenant(t *testing.T) {
	r := newRig(t)
	attacker, victim := r.tenant(), r.world(r.tenant())
	must(attacker.endpoints.CreateEndpoint(t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{}}))(t)
	r.invokeAll(t, victim, func(method protoreflect.MethodDescriptor, request proto.Message) {
		name := rpcName(method)
		before := r.rows(victim.id)
		theirs := r.invoke(method, attacker.key, request)
		nothings := r.invoke(method, attacker.key, nobodys(t, request))
		if comparable(theirs) != comparable(nothings) {
			t.Errorf("%s tells the ids of another tenant from those of nothing:\n%s\n%s", name, theirs.text, nothings.text)
		}
		shown := echoed.ReplaceAllString(theirs.text, "")
		for _, mark := range victim.marks() {
			if strings.Contains(shown, mark) && theirs.code == "" {
				t.Errorf("%s shows %q of another tenant: %s", name, mark, theirs.text)
			}
		}
		if accesses[name].scope == tenant.Operator && theirs.code != "permission_denied" {
			t.Errorf("%s is the operator's, and answers %q", name, theirs.text)
		}
		if after := r.rows(victim.id); after != before {
			t.Errorf("%s of one tenant changed rows of another", name)
		}
		if !method.IsStreamingServer() {
			if a, b := r.queries(method, attacker.key, func() proto.Message { return request }), r.queries(method, attacker.key, func() proto.Message { return nobodys(t, request) }); a != b {
				t.Errorf("%s makes %d queries for ids of another tenant, %d for those of nothing", name, a, b)
			}
		}
	})
	for _, path := range []string{"/log/1/checkpoint", "/log/1/tile/0/000.p/1", "/log/1/tile/0/000.p/2"} {
		response := must(r.client.Get(r.url + path))(t)
		tile := must(io.ReadAll(response.Body))(t)
		response.Body.Close()
		for _, mark := range victim.marks() {
			if bytes.Contains(tile, []byte(mark)) {
				t.Errorf("%s shows %q", path, mark)
			}
		}
	}
}

// queries is how many statements a call costs: the least of some, since other parts of the node work meanwhile.
func (r *rig) queries(method protoreflect.MethodDescriptor, key string, request func() proto.Message) int64 {
	r.t.Helper()
	least := int64(1 << 62)
	for range 5 {
		before := r.db.RoundTrips()
		r.invoke(method, key, request())
		least = min(least, r.db.RoundTrips()-before)
	}
	return least
}

// invokeAll runs f for each rpc of the contract, in the order of calls. One that calls does not have must not be there yet.
func (r *rig) invokeAll(t *testing.T, w world, f func(method protoreflect.MethodDescriptor, request proto.Message)) {
	t.Helper()
	methods := make(map[string]protoreflect.MethodDescriptor)
	for _, method := range rpcs() {
		methods[rpcName(method)] = method
		if slices.ContainsFunc(calls, func(c call) bool { return c.rpc == rpcName(method) }) {
			continue
		}
		key := w.key
		if accesses[rpcName(method)].scope == tenant.Operator {
			key = w.operator.key
		}
		if got := r.invoke(method, key, dynamicRequest(method)); got.code != "unimplemented" {
			t.Errorf("%s is there, and calls has no request for it", rpcName(method))
		}
	}
	for _, c := range calls {
		method, found := methods[c.rpc]
		if !found {
			t.Errorf("the contract has no %s", c.rpc)
			continue
		}
		f(method, c.request(w))
	}
}

func dynamicRequest(method protoreflect.MethodDescriptor) proto.Message {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	if err != nil {
		return nil
	}
	return kind.New().Interface()
}

// notAudited says of rpcs with side effects why they leave no entry.
var notAudited = map[string]string{
	"IngestService/Ingest":      "an event is its own record",
	"IngestService/IngestBatch": "an event is its own record",
	"ListenService/Report":      "an attempt is its own record",
}

// Each rpc with side effects, by someone who may: it works, and its audit entry says who did it, and from where.
func TestEachChangeLeavesAnAuditEntry(t *testing.T) {
	r := newRig(t)
	w := r.world(r.tenant())
	keyID := must(id.APIKey.Parse(must(w.tenants.ListApiKeys(t.Context(), &kapselv1.ListApiKeysRequest{}))(t).ApiKeys[1].Id))(t)
	r.invokeAll(t, w, func(method protoreflect.MethodDescriptor, request proto.Message) {
		name, key, actor := rpcName(method), w.key, id.APIKey.Text(keyID)
		if accesses[name].scope == tenant.Operator {
			key, actor = w.operator.key, "operator"
		}
		const entries = "select count(*) from audit_entries where action = $1 and actor = $2 and source_address = '127.0.0.1' and actor_key is not null"
		before := r.count(entries, string(method.Name()), actor)
		total := r.count("select count(*) from audit_entries")
		got := r.invoke(method, key, request)
		if got.code == "unimplemented" {
			return
		}
		if got.code != "" {
			t.Errorf("%s does not work for its owner, so that it shows nothing of others: %s", name, got.text)
			return
		}
		made := r.count(entries, string(method.Name()), actor) - before
		if _, excepted := notAudited[name]; excepted || !changes(method) {
			if all := r.count("select count(*) from audit_entries") - total; all != 0 {
				t.Errorf("%s leaves %d audit entries, want none", name, all)
			}
		} else if made == 0 {
			t.Errorf("%s leaves no audit entry with its name, actor and address: write one in its transaction (api.audit)", name)
		}
	})
	log := r.count("select count(*) from audit_entries where detail like '%' || $1 || '%'", w.canary())
	if log != 0 {
		t.Errorf("%d audit entries have a detail that holds the canary", log)
	}
}
