package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

// limitTenant sets columns of the tenant's limits.
func (r *rig) limitTenant(a account, set string) {
	r.t.Helper()
	if _, err := r.db.Engine().Exec(r.t.Context(), "update tenants set "+set+" where tenant_id = $1", a.id); err != nil {
		r.t.Fatal(err)
	}
	if err := r.deps.Routes.Refresh(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// postSigned posts one signed webhook of that id: plain, or by net/http's way.
func (r *rig) postSigned(e *kapselv1.Endpoint, secret, deliveryID string, body []byte, plain bool) answer {
	r.t.Helper()
	header := must(signature.Sign(signature.Config{Preset: signature.PresetGitHub}, []byte(secret), body, time.Now(), deliveryID))(r.t)
	var reader io.Reader = bytes.NewReader(body)
	if !plain {
		reader = io.MultiReader(reader) // of unknown length: chunked
	}
	return r.post(r.ingestURL(e), header, reader)
}

func TestTenantOverItsRateGetsInAfterRetryAfter(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, secret := r.endpoint(a, &kapselv1.Endpoint{Verification: github})
	r.limitTenant(a, "ingest_per_second = 1, ingest_burst = 4")
	for _, plain := range []bool{true, false} {
		refused, sent := answer{}, 0
		for refused.status != http.StatusTooManyRequests {
			if sent++; sent > 50 {
				t.Fatal("50 webhooks at a rate of 1 a second, and none was refused")
			}
			refused = r.postSigned(e, secret, fmt.Sprint(plain, sent), []byte("{}"), plain)
		}
		if plain && sent < 5 {
			t.Errorf("webhook %d was refused, with a burst of 4", sent)
		}
		refused.wantProblem(t, http.StatusTooManyRequests, "rate_limited")
		seconds, err := strconv.Atoi(refused.header.Get("Retry-After"))
		if err != nil || seconds != 1 {
			t.Errorf("Retry-After %q, want 1", refused.header.Get("Retry-After"))
		}
		if got := refused.header.Get("RateLimit-Policy"); got != `"per-second";q=1;w=1` {
			t.Errorf("RateLimit-Policy %s", got)
		}
		if got := refused.header.Get("RateLimit"); got != `"per-second";r=0;t=1` {
			t.Errorf("RateLimit %s", got)
		}
		time.Sleep(time.Duration(seconds) * time.Second)
		if late := r.postSigned(e, secret, fmt.Sprint(plain, "late"), []byte("{}"), plain); late.status != http.StatusAccepted {
			t.Errorf("after Retry-After: %d %s", late.status, late.Code)
		}
	}
}

func TestOnlyNewEventsSpendTheDaysQuota(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, secret := r.endpoint(a, &kapselv1.Endpoint{Verification: github})
	r.limitTenant(a, "ingest_per_day = 2, ingest_bytes_per_day = 1000, max_body_bytes = 900")
	for i := range 10 {
		r.postSigned(e, "another secret", fmt.Sprint("forged ", i), []byte("{}"), true).wantProblem(t, http.StatusUnauthorized, "signature_invalid")
	}
	r.postSigned(e, secret, "large", make([]byte, 901), true).wantProblem(t, http.StatusRequestEntityTooLarge, "payload_too_large")
	for range 3 {
		if first := r.postSigned(e, secret, "first", []byte("{}"), true); first.status != http.StatusAccepted {
			t.Fatalf("first or its repeat: %d %s", first.status, first.Code)
		}
	}
	over := r.postSigned(e, secret, "over", make([]byte, 900), true)
	if over.status != http.StatusAccepted {
		t.Fatalf("within the day's bytes: %d %s", over.status, over.Detail)
	}
	refused := r.postSigned(e, secret, "third", []byte("{}"), true)
	refused.wantProblem(t, http.StatusTooManyRequests, "quota_exceeded")
	seconds, _ := strconv.Atoi(refused.header.Get("Retry-After"))
	if midnight := time.Now().Add(time.Duration(seconds) * time.Second).UTC(); midnight.Hour() != 0 || midnight.Minute() != 0 {
		t.Errorf("Retry-After %d, which is %s: want midnight UTC", seconds, midnight)
	}
	if got := refused.header.Get("RateLimit-Policy"); got != `"per-day";q=2;w=86400` {
		t.Errorf("RateLimit-Policy %s", got)
	}

	r.limitTenant(a, "ingest_per_day = null")
	refused = r.postSigned(e, secret, "fourth", make([]byte, 200), true)
	refused.wantProblem(t, http.StatusTooManyRequests, "quota_exceeded")
	if got := refused.header.Get("RateLimit-Policy"); got != `"bytes-per-day";q=1000;qu="content-bytes";w=86400` {
		t.Errorf("RateLimit-Policy %s", got)
	}
	if got := refused.header.Get("RateLimit"); !strings.HasPrefix(got, `"bytes-per-day";r=98;t=`) {
		t.Errorf("RateLimit %s", got)
	}
	if small := r.postSigned(e, secret, "small", make([]byte, 98), true); small.status != http.StatusAccepted {
		t.Errorf("the last bytes of the day: %d %s", small.status, small.Detail)
	}
}

func TestCallsOverALimitAreToldWhenToComeAgain(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	r.limitTenant(a, "ingest_per_day = 2")
	webhook := func(i int) *kapselv1.IngestRequest {
		return &kapselv1.IngestRequest{EndpointId: e.Id, Payload: fmt.Append(nil, i)}
	}
	batch, err := a.ingest.IngestBatch(t.Context(), &kapselv1.IngestBatchRequest{Webhooks: []*kapselv1.IngestRequest{webhook(1), webhook(2), webhook(3)}})
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, result := range batch.Results {
		if e := result.GetError(); e != nil {
			refused++
			if e.Reason != kapselv1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED || e.Code != int32(connect.CodeResourceExhausted) || e.RetryDelay.AsDuration() <= 0 {
				t.Errorf("result %+v", e)
			}
		}
	}
	if refused != 1 {
		t.Errorf("%d of 3 refused, with a quota of 2", refused)
	}
	_, err = a.ingest.Ingest(t.Context(), webhook(4))
	exhausted := wantReason(t, err, connect.CodeResourceExhausted, "QUOTA_EXCEEDED")
	if wait := detailOf[*errdetails.RetryInfo](t, exhausted).GetRetryDelay().AsDuration(); wait <= 0 || wait > 24*time.Hour {
		t.Errorf("RetryInfo says %v", wait)
	}
}

func TestSourceThatFailsTooOftenIsAskedToWait(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	known, knownSecret := r.endpoint(a, &kapselv1.Endpoint{Verification: github})
	fresh, _ := r.endpoint(a, &kapselv1.Endpoint{Verification: github})
	other, otherSecret := r.endpoint(a, &kapselv1.Endpoint{Verification: github})
	for _, e := range []*kapselv1.Endpoint{known, fresh, other} { // without a destination, a young one is looked up anew each time
		r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	}
	if first := r.postSigned(known, knownSecret, "1", []byte("{}"), true); first.status != http.StatusAccepted {
		t.Fatal(first)
	}
	flood := func(failed func() answer) answer {
		t.Helper()
		for range 2000 { // faster than the bucket fills
			if a := failed(); a.status == http.StatusTooManyRequests {
				return a
			}
		}
		t.Fatal("2000 failures in a row, and none was refused")
		return answer{}
	}
	blocked := flood(func() answer { return r.postSigned(fresh, "wrong", "1", []byte("{}"), true) })
	blocked.wantProblem(t, http.StatusTooManyRequests, "rate_limited")
	if blocked.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", blocked.header.Get("Retry-After"))
	}
	// What fails at one endpoint says nothing of another.
	if fine := r.postSigned(other, otherSecret, "2", []byte("{}"), true); fine.status != http.StatusAccepted {
		t.Errorf("another endpoint's source was refused: %d %s", fine.status, fine.Detail)
	}
	// Who signed well for an endpoint before is never asked to wait, whoever floods it from the same address.
	for i := range 300 {
		r.postSigned(known, "wrong", fmt.Sprint("forged ", i), []byte("{}"), i%2 == 0).wantProblem(t, http.StatusUnauthorized, "signature_invalid")
	}
	if fine := r.postSigned(known, knownSecret, "3", []byte("{}"), true); fine.status != http.StatusAccepted {
		t.Errorf("a source that signs well was refused: %d %s", fine.status, fine.Detail)
	}
	nowhere := r.url + ingestPath + "ep_01m87j6mtcfcq90hena1ynqzsh"
	flood(func() answer { return r.post(nowhere, nil, nil) }).wantProblem(t, http.StatusTooManyRequests, "rate_limited")

	// The same for API keys: one that was good before is looked at whoever else fails.
	stranger, unseen := r.account(a.id, ""), r.account(a.id, r.apiKey(a.id))
	var err error
	for range 2000 {
		if _, err = stranger.endpoints.ListEndpoints(t.Context(), new(kapselv1.ListEndpointsRequest)); connect.CodeOf(err) == connect.CodeResourceExhausted {
			break
		}
	}
	exhausted := wantReason(t, err, connect.CodeResourceExhausted, "RATE_LIMITED")
	if wait := detailOf[*errdetails.RetryInfo](t, exhausted).GetRetryDelay().AsDuration(); wait <= 0 || wait > time.Second {
		t.Errorf("RetryInfo says %v", wait)
	}
	if _, err := a.endpoints.ListEndpoints(t.Context(), new(kapselv1.ListEndpointsRequest)); err != nil {
		t.Errorf("a key that was good before: %v", err)
	}
	time.Sleep(time.Second)
	if _, err := unseen.endpoints.ListEndpoints(t.Context(), new(kapselv1.ListEndpointsRequest)); err != nil {
		t.Errorf("a good key, after the wait: %v", err)
	}
}

func TestCreationsAtOnceDoNotExceedAQuota(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	r.limitTenant(a, "max_endpoints = 3, max_destinations = 3")
	var made, refused atomic.Int64
	count := func(err error) {
		if err == nil {
			made.Add(1)
			return
		}
		refused.Add(1)
		wantReason(t, err, connect.CodeResourceExhausted, "QUOTA_EXCEEDED")
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			_, err := a.endpoints.CreateEndpoint(t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{}})
			count(err)
		})
		group.Go(func() {
			_, err := a.destinations.CreateDestination(t.Context(), &kapselv1.CreateDestinationRequest{
				Destination: &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/in"}})
			count(err)
		})
	}
	group.Wait()
	if made.Load() != 2+3 || refused.Load() != 11 {
		t.Errorf("%d made and %d refused, want 5 and 11", made.Load(), refused.Load())
	}
}

func TestUsageIsCountedADayAtATime(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, secret := r.endpoint(a, &kapselv1.Endpoint{Verification: github, PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON})
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(http.StatusOK)})
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(http.StatusGone)}) // given up at once, and disabled
	r.limitTenant(a, "ingest_per_day = 3, payload_retention_seconds = 86400")
	r.postSigned(e, secret, "1", []byte("{}"), true)
	r.postSigned(e, secret, "1", []byte("{}"), false)
	r.postSigned(e, secret, "2", []byte("no JSON"), true)
	r.postSigned(e, "another", "3", []byte("{}"), true)
	if _, err := r.db.Engine().Exec(t.Context(), `insert into tenant_usage (tenant_id, day, events) values ($1, current_date - 400, 7), ($1, current_date - 40, 5)`, a.id); err != nil {
		t.Fatal(err)
	}
	want := &kapselv1.UsageDay{Events: 2, Duplicates: 1, PayloadBytes: 9, Attempts: 2, Delivered: 1, DeadLettered: 2}
	var got *kapselv1.GetUsageResponse
	r.eventually(func() bool {
		var err error
		if got, err = a.tenants.GetUsage(t.Context(), new(kapselv1.GetUsageRequest)); err != nil {
			t.Fatal(err)
		}
		want.Day = got.Days[0].GetDay()
		return proto.Equal(got.Days[0], want)
	}, func() string { return fmt.Sprintf("today is %v, want %v", got.Days[0], want) })
	if len(got.Days) != 30 || got.Endpoints != 1 || got.Destinations != 2 || got.Limits.IngestPerDay != 3 || got.Limits.PayloadRetention.Seconds != 86400 {
		t.Errorf("%d days, %d endpoints, %d destinations, limits %v", len(got.Days), got.Endpoints, got.Destinations, got.Limits)
	}
	if today := time.Now().UTC().Truncate(24 * time.Hour); !got.Days[0].Day.AsTime().Equal(today) || !got.Days[29].Day.AsTime().Equal(today.AddDate(0, 0, -29)) {
		t.Errorf("from %v back to %v", got.Days[0].Day.AsTime(), got.Days[29].Day.AsTime())
	}
	all, err := a.tenants.GetUsage(t.Context(), &kapselv1.GetUsageRequest{Range: &kapselv1.TimeRange{StartTime: timestamppb.New(time.Unix(0, 0))}})
	if err != nil || len(all.Days) != 400 || all.Days[40].Events != 5 || all.Days[399].Events != 0 {
		t.Errorf("%d days since ever, %v", len(all.GetDays()), err)
	}
	one, err := a.tenants.GetUsage(t.Context(), &kapselv1.GetUsageRequest{Range: &kapselv1.TimeRange{
		StartTime: timestamppb.New(time.Now().AddDate(0, 0, -40)), EndTime: timestamppb.New(time.Now().AddDate(0, 0, -40).Add(time.Nanosecond))}})
	if err != nil || len(one.Days) != 1 || one.Days[0].Events != 5 {
		t.Errorf("one moment of a day: %v, %v", one, err)
	}
}

// One tenant sends twenty times what it may, and does not wait when it is told to; another one's webhooks all get in.
func TestTenantFarOverItsLimitKeepsNobodyElseOut(t *testing.T) {
	const limited, senders = 10, 4
	r := newRig(t)
	flooding, other := r.tenant(), r.tenant()
	r.limitTenant(flooding, fmt.Sprintf("ingest_per_second = %d", limited))
	flooded, floodSecret := r.endpoint(flooding, &kapselv1.Endpoint{Verification: github})
	quiet, secret := r.endpoint(other, &kapselv1.Endpoint{Verification: github})
	began := time.Now()
	var accepted, refused, longest atomic.Int64
	var group sync.WaitGroup
	for sender := range senders {
		group.Go(func() {
			for i := range 20 * limited {
				switch a := r.postSigned(flooded, floodSecret, fmt.Sprint(sender, "-", i), []byte("{}"), true); a.status {
				case http.StatusAccepted:
					accepted.Add(1)
				case http.StatusTooManyRequests:
					refused.Add(1)
					seconds, _ := strconv.ParseInt(a.header.Get("Retry-After"), 10, 64)
					longest.Store(max(longest.Load(), seconds))
				default:
					t.Errorf("the flood was answered with %d %s", a.status, a.Code)
				}
			}
		})
	}
	for i := range 50 {
		if a := r.postSigned(quiet, secret, fmt.Sprint(i), []byte("{}"), true); a.status != http.StatusAccepted {
			t.Errorf("the other tenant's webhook %d was answered with %d %s", i, a.status, a.Code)
		}
	}
	group.Wait()
	if most := limited + int64(time.Since(began).Seconds()*limited) + 1; accepted.Load() > most || accepted.Load() < limited {
		t.Errorf("%d of the flood got in after %v, want %d to %d", accepted.Load(), time.Since(began), limited, most)
	}
	if refused.Load()+accepted.Load() != senders*20*limited || longest.Load() != 1 {
		t.Errorf("%d refused with a Retry-After of up to %d, want %d with 1", refused.Load(), longest.Load(), senders*20*limited-accepted.Load())
	}
	time.Sleep(time.Second)
	if a := r.postSigned(flooded, floodSecret, "late", []byte("{}"), true); a.status != http.StatusAccepted {
		t.Errorf("after Retry-After: %d %s", a.status, a.Code)
	}
}

// Proxies and clients that know HTTP alone are told too, whichever protocol the call came by.
func TestRefusedCallsHaveRetryAfter(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	r.limitTenant(a, "ingest_per_day = 1")
	if _, err := a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id}); err != nil {
		t.Fatal(err)
	}
	message := must(proto.Marshal(&kapselv1.IngestRequest{EndpointId: e.Id, Payload: []byte("1")}))(t)
	framed := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	for contentType, body := range map[string][]byte{
		"application/json":           fmt.Appendf(nil, `{"endpointId":%q}`, e.Id),
		"application/proto":          message,
		"application/grpc-web+proto": framed,
	} {
		request := must(http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/kapsel.v1.IngestService/Ingest", bytes.NewReader(body)))(t)
		request.Header.Set("Content-Type", contentType)
		request.Header.Set("Authorization", "Bearer "+a.key)
		response := must(r.client.Do(request))(t)
		answer, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 86400 {
			t.Errorf("%s: %d with Retry-After %q: %s", contentType, response.StatusCode, response.Header.Get("Retry-After"), answer)
		}
	}
}
