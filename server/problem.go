package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/limit"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

// problemBase and the code make a problem's type URI.
const problemBase = "https://kapsel.dev/problems/"

// statusClientClosed is what is noted of a request whose client went away. Nobody reads it.
const statusClientClosed = 499

// problem is an error of /ingest (RFC 9457). Its code is the name of an ErrorReason in lower case.
type problem struct {
	status int
	reason kapselv1.ErrorReason
	// detail is for people, and says what to do.
	detail string
	retry  time.Duration
	// policy of the limit that was exceeded, and what is left of it; without a name there is none.
	policy    policy
	remaining int64
	// closes says that the rest of the request was not read, so that the connection cannot be used again.
	closes bool
}

func newProblem(status int, reason kapselv1.ErrorReason, detail string) *problem {
	return &problem{status: status, reason: reason, detail: detail}
}

// problemOf translates what intake returns. Nil: the error is one of the server's own. The texts of package signature
// quote nothing of the request and no secret.
func problemOf(ctx context.Context, err error) *problem {
	switch {
	case errors.Is(err, signature.ErrMissingSignature):
		return newProblem(http.StatusUnauthorized, kapselv1.ErrorReason_ERROR_REASON_SIGNATURE_MISSING, err.Error())
	case errors.Is(err, signature.ErrMalformedSignature), errors.Is(err, signature.ErrBadSignature):
		return newProblem(http.StatusUnauthorized, kapselv1.ErrorReason_ERROR_REASON_SIGNATURE_INVALID, err.Error())
	case errors.Is(err, signature.ErrStaleTimestamp), errors.Is(err, signature.ErrFutureTimestamp):
		return newProblem(http.StatusUnauthorized, kapselv1.ErrorReason_ERROR_REASON_TIMESTAMP_INVALID, err.Error())
	}
	var exceeded *limit.Exceeded
	if errors.As(err, &exceeded) {
		return exceededProblem(exceeded)
	}
	if r := refusalOf(err); r != nil && r.retry > 0 {
		return &problem{status: http.StatusServiceUnavailable, reason: r.reason, detail: r.message, retry: r.retry}
	}
	if ctx.Err() != nil {
		return newProblem(statusClientClosed, kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "the client went away")
	}
	return nil
}

// write answers with the problem. The correlation id is in the log at level debug, or error for an internal one.
func (p *problem) write(w http.ResponseWriter, correlationID string) {
	code := strings.ToLower(reasonText(p.reason))
	body := make([]byte, 0, 512)
	body = append(append(append(body, `{"type":"`+problemBase...), code...), `","title":"`...)
	body = append(append(body, title(p.status)...), `","status":`...)
	body = append(strconv.AppendInt(body, int64(p.status), 10), `,"detail":`...)
	body = append(appendJSONString(body, p.detail), `,"code":"`...)
	body = append(append(body, code...), `","correlation_id":"`...)
	body = append(append(body, correlationID...), "\"}\n"...)

	header := w.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	if p.retry > 0 {
		header.Set("Retry-After", wholeSeconds(p.retry))
	}
	if p.policy.name != "" {
		p.policy.set(header, p.remaining, p.retry)
	}
	if p.closes {
		header.Set("Connection", "close")
	}
	w.WriteHeader(p.status)
	w.Write(body)
}

func title(status int) string {
	if status == statusClientClosed {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}

// refuse answers a request of /ingest that is not taken, and returns the problem.
func (h *ingestHandler) refuse(w http.ResponseWriter, r *http.Request, p *problem) *problem {
	p.closes = p.closes && r.ProtoMajor == 1
	correlationID := id.New().String()
	h.api.Logger.DebugContext(r.Context(), "webhook refused", "path", r.URL.Path, "status", p.status,
		"reason", reasonText(p.reason), "detail", p.detail, "correlation_id", correlationID)
	p.write(w, correlationID)
	return p
}

// fail answers a request of /ingest that intake gave back, and returns the problem.
func (h *ingestHandler) fail(w http.ResponseWriter, r *http.Request, err error) *problem {
	if p := problemOf(r.Context(), err); p != nil {
		if p.status == http.StatusUnauthorized {
			endpointID, _ := id.Endpoint.Parse(strings.TrimPrefix(r.URL.Path, ingestPath)) // it was found by that
			h.api.Sources.Failed(sourceOf(r, endpointID))
		}
		return h.refuse(w, r, p)
	}
	p := newProblem(http.StatusInternalServerError, kapselv1.ErrorReason_ERROR_REASON_INTERNAL, "internal error: report the correlation id")
	p.write(w, h.api.logInternal(r.Context(), "ingest", err))
	return p
}

// appendJSONString appends text as a JSON string (RFC 8259 section 7). Text is valid UTF-8.
func appendJSONString(b []byte, text string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = append(b, string(c)...)
		}
	}
	return append(b, '"')
}
