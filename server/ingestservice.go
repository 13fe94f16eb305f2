package server

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ingest"
	"github.com/kapsel-dev/kapsel/internal/tenant"
)

// maxBatchPayload of all payloads of a batch together, as the contract says.
const maxBatchPayload = 32 << 20

// ingestService takes webhooks in for sources that hold an API key.
type ingestService struct {
	kapselv1connect.UnimplementedIngestServiceHandler
	*api
}

func (s *ingestService) Ingest(ctx context.Context, request *kapselv1.IngestRequest) (*kapselv1.IngestResponse, error) {
	receipt, err := s.accept(ctx, caller(ctx), peer(ctx), request)
	if err != nil {
		return nil, err
	}
	return &kapselv1.IngestResponse{Receipt: receipt}, nil
}

// IngestBatch hands in all webhooks at once, so that they share a commit.
func (s *ingestService) IngestBatch(ctx context.Context, request *kapselv1.IngestBatchRequest) (*kapselv1.IngestBatchResponse, error) {
	size := 0
	for _, webhook := range request.Webhooks {
		size += len(webhook.Payload)
	}
	if size > maxBatchPayload {
		return nil, refuse(kapselv1.ErrorReason_ERROR_REASON_PAYLOAD_TOO_LARGE, "the payloads of a batch may have %d bytes together: send smaller batches", maxBatchPayload)
	}
	principal, address := caller(ctx), peer(ctx)
	results := make([]*kapselv1.IngestResult, len(request.Webhooks))
	var waiting sync.WaitGroup
	for i, webhook := range request.Webhooks {
		waiting.Go(func() {
			receipt, err := s.acceptOneOfMany(ctx, principal, address, webhook)
			if err != nil {
				results[i] = &kapselv1.IngestResult{Result: &kapselv1.IngestResult_Error{Error: s.ingestError(ctx, err)}}
				return
			}
			results[i] = &kapselv1.IngestResult{Result: &kapselv1.IngestResult_Receipt{Receipt: receipt}}
		})
	}
	waiting.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &kapselv1.IngestBatchResponse{Results: results}, nil
}

// acceptOneOfMany is accept on a goroutine of its own, where a panic would end the process: it is one webhook's error.
func (s *ingestService) acceptOneOfMany(ctx context.Context, principal tenant.Principal, address string, request *kapselv1.IngestRequest) (receipt *kapselv1.Receipt, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			receipt, err = nil, fmt.Errorf("panic: %v\n%s", panicked, debug.Stack())
		}
	}()
	return s.accept(ctx, principal, address, request)
}

func (s *ingestService) accept(ctx context.Context, principal tenant.Principal, address string, request *kapselv1.IngestRequest) (*kapselv1.Receipt, error) {
	endpointID, err := id.Endpoint.Parse(request.EndpointId)
	if err != nil {
		return nil, noSuchEndpoint()
	}
	endpoint, err := s.finder.find(ctx, endpointID, principal.TenantID)
	if err != nil {
		return nil, err
	}
	if endpoint == nil {
		return nil, noSuchEndpoint()
	}
	if !endpoint.Enabled {
		return nil, refuse(kapselv1.ErrorReason_ERROR_REASON_ENDPOINT_DISABLED, "the endpoint is disabled: enable it first")
	}
	if endpoint.Suspended { // since the key was looked up
		return nil, authError(tenant.ErrSuspended, tenant.Ingest)
	}
	if endpoint.Broken != "" {
		return nil, brokenEndpoint()
	}
	if len(request.Payload) > endpoint.MaxBodyBytes {
		return nil, refuse(kapselv1.ErrorReason_ERROR_REASON_PAYLOAD_TOO_LARGE, "the endpoint takes payloads of at most %d bytes", endpoint.MaxBodyBytes)
	}
	header := make(http.Header, len(request.Headers))
	for _, h := range request.Headers {
		header.Add(h.Name, h.Value)
	}
	if tooManyHeaders(header) {
		return nil, refuse(kapselv1.ErrorReason_ERROR_REASON_HEADERS_TOO_LARGE, "a webhook may have %d headers and %d bytes of them",
			maxWebhookHeaders, maxWebhookHeaderBytes)
	}
	receipt, err := s.api.Ingest.Accept(ctx, ingest.Webhook{
		Endpoint: endpoint, Header: header, Body: request.Payload,
		ReceivedAt: time.Now(), SourceAddress: address, Trusted: true,
	})
	if err != nil {
		return nil, err
	}
	state := kapselv1.ReceiptState_RECEIPT_STATE_ACCEPTED
	if receipt.State == ingest.DeadLettered {
		state = kapselv1.ReceiptState_RECEIPT_STATE_DEAD_LETTERED
	}
	return &kapselv1.Receipt{
		EventId: id.Event.Text(receipt.EventID), State: state, Duplicate: receipt.Duplicate,
		ReceivedAt: timestamppb.New(receipt.ReceivedAt),
	}, nil
}

// ingestError is the error of one webhook of a batch, as Ingest would have answered it. Connect's codes are those of
// google.rpc.Code.
func (s *ingestService) ingestError(ctx context.Context, err error) *kapselv1.IngestError {
	if r := refusalOf(err); r != nil {
		result := &kapselv1.IngestError{Code: int32(code(r.reason)), Reason: r.reason, Message: r.message}
		if r.retry > 0 {
			result.RetryDelay = durationpb.New(r.retry)
		}
		return result
	}
	answered := s.rpcError(ctx, kapselv1connect.IngestServiceIngestBatchProcedure, err)
	return &kapselv1.IngestError{
		Code: int32(answered.Code()), Reason: kapselv1.ErrorReason_ERROR_REASON_INTERNAL, Message: answered.Message(),
	}
}

// peer is the address that a call came from.
func peer(ctx context.Context) string {
	info, found := connect.CallInfoForServerContext(ctx)
	if !found {
		return ""
	}
	return remoteHost(info.PeerAddr)
}

func noSuchEndpoint() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_ENDPOINT_NOT_FOUND, "there is no such endpoint")
}
