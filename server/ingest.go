package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ingest"
	"github.com/kapsel-dev/kapsel/internal/route"
)

// ingestPath and an endpoint's id make the address that sources post to.
const ingestPath = "/ingest/"

// Bounds on a webhook's headers, all together, the same as IngestService has.
const (
	maxWebhookHeaders     = 256
	maxWebhookHeaderBytes = 64 << 10
	// headerOverhead is ": " and CRLF.
	headerOverhead = 4
)

// ingestHandler serves POST /ingest/{endpoint_id}. It is the hot path: no reflection, no log line, no query.
type ingestHandler struct {
	api *api
	// bodyTimeout is how long a source may take to send a body.
	bodyTimeout time.Duration
	metrics     ingestMetrics
}

func (h *ingestHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		h.serveOther(w, r)
		return
	}
	began := time.Now()
	problem := h.take(w, r, &began)
	h.metrics.answered(problem, time.Since(began))
}

// take takes a webhook in and answers it. It returns what it was answered with instead of a 202, such as a refusal. began
// becomes the moment from which on the answer is the server's work, when the whole body is there.
func (h *ingestHandler) take(w http.ResponseWriter, r *http.Request, began *time.Time) *problem {
	endpoint, refused := h.endpoint(r)
	if refused != nil {
		return h.refuse(w, r, refused)
	}
	if tooManyHeaders(r.Header) {
		return h.refuse(w, r, newProblem(http.StatusRequestHeaderFieldsTooLarge, kapselv1.ErrorReason_ERROR_REASON_HEADERS_TOO_LARGE,
			fmt.Sprintf("a webhook may have %d headers and %d bytes of them", maxWebhookHeaders, maxWebhookHeaderBytes)))
	}
	body, refused := h.readBody(w, r, endpoint.MaxBodyBytes)
	if refused != nil {
		return h.refuse(w, r, refused)
	}
	*began = time.Now()
	defer h.api.memory.release(int64(len(body)))
	var signedURL string
	if endpoint.Verifier.SignsURL() {
		signedURL = h.signedURL(endpoint, r)
	}
	if endpoint.Verifier.Handshakes() && h.answerHandshake(w, r, endpoint, body, signedURL) {
		return handshaken
	}
	// A source that has sent all and closed its side waits for the answer all the same; the commit is bounded by itself.
	receipt, err := h.api.Ingest.Accept(context.WithoutCancel(r.Context()), ingest.Webhook{
		Endpoint: endpoint, Method: r.Method, URL: signedURL, Header: r.Header, Body: body,
		ReceivedAt: *began, SourceAddress: remoteHost(r.RemoteAddr),
	})
	if err != nil {
		refused := h.fail(w, r, err)
		if refused.status == http.StatusUnauthorized {
			h.metrics.unproved.With("preset", endpoint.Preset, "reason", reasonLabel(refused.reason)).Add(1)
		}
		return refused
	}
	h.api.Sources.Proved(sourceOf(r, endpoint.ID))
	status := endpoint.Verifier.Acknowledgement()
	writeReceipt(w, receipt, status)
	if status != http.StatusAccepted {
		return &problem{status: status}
	}
	return nil
}

// endpoint is the one that a request is for, or why there is none that takes it.
func (h *ingestHandler) endpoint(r *http.Request) (*route.Endpoint, *problem) {
	endpointID, err := id.Endpoint.Parse(strings.TrimPrefix(r.URL.Path, ingestPath))
	if err != nil {
		return nil, endpointNotFound()
	}
	endpoint, current := h.api.finder.look(endpointID, anyTenant)
	if endpoint == nil {
		if wait := h.api.Sources.Blocked(unknownEndpoints(r)); wait > 0 {
			return nil, blockedProblem(wait)
		}
	}
	if !current {
		if endpoint, err = h.api.finder.find(r.Context(), endpointID, anyTenant); err != nil {
			return nil, problemOf(r.Context(), err)
		}
	}
	switch {
	case endpoint == nil || !endpoint.Enabled:
		h.api.Sources.Failed(unknownEndpoints(r))
		return nil, endpointNotFound()
	case endpoint.Suspended:
		return nil, newProblem(http.StatusForbidden, kapselv1.ErrorReason_ERROR_REASON_TENANT_SUSPENDED,
			"webhooks are not taken in at present: the tenant is suspended")
	case endpoint.Broken != "":
		return nil, problemOf(r.Context(), brokenEndpoint())
	}
	if wait := h.api.Sources.Blocked(sourceOf(r, endpointID)); wait > 0 {
		return nil, blockedProblem(wait)
	}
	return endpoint, nil
}

// endpointNotFound is also the answer for a disabled endpoint, as if it were not there.
func endpointNotFound() *problem {
	return newProblem(http.StatusNotFound, kapselv1.ErrorReason_ERROR_REASON_ENDPOINT_NOT_FOUND,
		"there is no such endpoint: check the address")
}

func tooManyHeaders(header http.Header) bool {
	count, size := 0, 0
	for name, values := range header {
		count += len(values)
		for _, value := range values {
			size += len(name) + len(value) + headerOverhead
		}
	}
	return count > maxWebhookHeaders || size > maxWebhookHeaderBytes
}

// remoteHost is the address of a connection's peer without its port.
func remoteHost(address string) string {
	if i := strings.LastIndexByte(address, ':'); i >= 0 {
		address = address[:i]
	}
	return strings.Trim(address, "[]")
}

var receiptType = []string{"application/json"}

// writeReceipt answers 202, or what the provider takes for it, which says that the event is committed. A 204 has no body.
func writeReceipt(w http.ResponseWriter, receipt ingest.Receipt, status int) {
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return
	}
	body := make([]byte, 0, 160)
	body = append(append(body, `{"event_id":"`...), id.Event.Text(receipt.EventID)...)
	body = append(append(body, `","state":"`...), receipt.State...)
	body = strconv.AppendBool(append(body, `","duplicate":`...), receipt.Duplicate)
	body = receipt.ReceivedAt.UTC().AppendFormat(append(body, `,"received_at":"`...), time.RFC3339Nano)
	body = append(body, "\"}\n"...)
	w.Header()["Content-Type"] = receiptType
	w.WriteHeader(status)
	w.Write(body)
}
