package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ingest"
	"github.com/kapsel-dev/kapsel/internal/limit"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// errorDomain of google.rpc.ErrorInfo: who defines the reasons.
const errorDomain = "kapsel.dev"

// When to come again.
const (
	overloadedRetry  = time.Second
	unavailableRetry = 2 * time.Second
	notSealedRetry   = 10 * time.Second
)

// refusal is an error that a caller is told: the stable reason, and the text for people.
type refusal struct {
	reason  kapselv1.ErrorReason
	message string
	// fields that are wrong, for INVALID_ARGUMENT.
	fields []*errdetails.BadRequest_FieldViolation
	// retry is how long to wait before trying again; 0: do not.
	retry time.Duration
}

func (r *refusal) Error() string { return r.message }

// refuse makes a refusal whose message says what to do.
func refuse(reason kapselv1.ErrorReason, format string, args ...any) *refusal {
	return &refusal{reason: reason, message: fmt.Sprintf(format, args...)}
}

// refuseField is a refusal of one field of the request.
func refuseField(reason kapselv1.ErrorReason, field, format string, args ...any) *refusal {
	r := refuse(reason, format, args...)
	r.fields = []*errdetails.BadRequest_FieldViolation{{Field: field, Description: r.message}}
	return r
}

// code is the one code that a reason goes with, as error.proto says.
func code(reason kapselv1.ErrorReason) connect.Code {
	switch reason {
	case kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, kapselv1.ErrorReason_ERROR_REASON_INVALID_TOKEN,
		kapselv1.ErrorReason_ERROR_REASON_ADDRESS_BLOCKED, kapselv1.ErrorReason_ERROR_REASON_UNKNOWN_PRESET,
		kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, kapselv1.ErrorReason_ERROR_REASON_INVALID_EXPRESSION,
		kapselv1.ErrorReason_ERROR_REASON_UNSUPPORTED_MEDIA_TYPE:
		return connect.CodeInvalidArgument
	case kapselv1.ErrorReason_ERROR_REASON_ETAG_MISMATCH:
		return connect.CodeAborted
	case kapselv1.ErrorReason_ERROR_REASON_NOT_IMPLEMENTED:
		return connect.CodeUnimplemented
	case kapselv1.ErrorReason_ERROR_REASON_API_KEY_MISSING, kapselv1.ErrorReason_ERROR_REASON_API_KEY_INVALID,
		kapselv1.ErrorReason_ERROR_REASON_API_KEY_EXPIRED, kapselv1.ErrorReason_ERROR_REASON_SIGNATURE_MISSING,
		kapselv1.ErrorReason_ERROR_REASON_SIGNATURE_INVALID, kapselv1.ErrorReason_ERROR_REASON_TIMESTAMP_INVALID:
		return connect.CodeUnauthenticated
	case kapselv1.ErrorReason_ERROR_REASON_SCOPE_MISSING, kapselv1.ErrorReason_ERROR_REASON_TENANT_SUSPENDED:
		return connect.CodePermissionDenied
	case kapselv1.ErrorReason_ERROR_REASON_PAYLOAD_TOO_LARGE, kapselv1.ErrorReason_ERROR_REASON_HEADERS_TOO_LARGE,
		kapselv1.ErrorReason_ERROR_REASON_RATE_LIMITED, kapselv1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED:
		return connect.CodeResourceExhausted
	case kapselv1.ErrorReason_ERROR_REASON_OVERLOADED, kapselv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE,
		kapselv1.ErrorReason_ERROR_REASON_SHUTTING_DOWN, kapselv1.ErrorReason_ERROR_REASON_SERVED_ELSEWHERE,
		kapselv1.ErrorReason_ERROR_REASON_LISTENER_SILENT:
		return connect.CodeUnavailable
	}
	switch {
	case strings.HasSuffix(reason.String(), "_NOT_FOUND"):
		return connect.CodeNotFound
	case reason >= kapselv1.ErrorReason_ERROR_REASON_ENDPOINT_DISABLED && reason < kapselv1.ErrorReason_ERROR_REASON_ADDRESS_BLOCKED:
		return connect.CodeFailedPrecondition
	}
	return connect.CodeInternal
}

// reasonText is the reason as ErrorInfo has it.
func reasonText(reason kapselv1.ErrorReason) string {
	return strings.TrimPrefix(reason.String(), "ERROR_REASON_")
}

// rpcError is the refusal as an RPC answers it.
func (r *refusal) rpcError() *connect.Error {
	return withDetails(connect.NewError(code(r.reason), r.message), r)
}

func withDetails(err *connect.Error, r *refusal) *connect.Error {
	details := []proto.Message{&errdetails.ErrorInfo{Reason: reasonText(r.reason), Domain: errorDomain}}
	if len(r.fields) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: r.fields})
	}
	if r.retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.retry)})
	}
	for _, message := range details {
		if detail, encodeErr := connectproto.NewErrorDetail(message); encodeErr == nil {
			err = err.WithDetail(detail)
		}
	}
	return err
}

// refusalOf translates what the packages behind the edge return. Nil: the error is one of the server's own.
func refusalOf(err error) *refusal {
	var known *refusal
	var exceeded *limit.Exceeded
	var pgErr *pgconn.PgError
	var netErr net.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &exceeded):
		return &refusal{reason: reasonOf(exceeded), message: exceeded.Error(), retry: exceeded.Wait}
	case errors.Is(err, ingest.ErrOverloaded), errors.Is(err, errNoMemory):
		return &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_OVERLOADED, message: "the server holds all it may: try again", retry: overloadedRetry}
	case errors.Is(err, ingest.ErrUnavailable):
		return storeUnavailable()
	case errors.Is(err, tlog.ErrNoQuorum):
		r := refuse(kapselv1.ErrorReason_ERROR_REASON_NOT_SEALED, "witnesses have not cosigned the tree head yet, and it is held back for them: try again")
		r.retry = notSealedRetry
		return r
	case errors.As(err, &pgErr) && (pgErr.Code == "22021" || pgErr.Code == "22P05"):
		// The contract allows any text, and PostgreSQL all but this one character (character_not_in_repertoire,
		// untranslatable_character).
		return refuse(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "text must not hold the character U+0000")
	case errors.As(err, &pgErr) && unavailableState(pgErr.Code):
		return storeUnavailable()
	case pgErr == nil && (pgconn.SafeToRetry(err) || errors.As(err, &netErr) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)):
		return storeUnavailable()
	}
	return nil
}

func storeUnavailable() *refusal {
	return &refusal{
		reason: kapselv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, message: "the database does not answer: try again", retry: unavailableRetry,
	}
}

// brokenEndpoint is the answer for an endpoint whose configuration or secret this node cannot use: it says why in its log.
func brokenEndpoint() *refusal {
	return &refusal{
		reason: kapselv1.ErrorReason_ERROR_REASON_INTERNAL, message: "the endpoint's configuration cannot be used at present: try again", retry: unavailableRetry,
	}
}

// unavailableState reports whether an SQLSTATE says that the database is away: connection exceptions (08), read-only for now (25006),
// too few resources (53), shut down or starting (57P).
func unavailableState(state string) bool {
	return strings.HasPrefix(state, "08") || state == "25006" || strings.HasPrefix(state, "53") || strings.HasPrefix(state, "57P")
}

// translateErrors is the outermost interceptor: whatever comes out of a call leaves here as a Connect error with a reason,
// and what is none of the caller's business stays in the log.
func (a *api) translateErrors(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
		defer func() {
			if panicked := recover(); panicked != nil {
				err = a.internalError(ctx, spec.Procedure, fmt.Errorf("panic: %v\n%s", panicked, debug.Stack()))
			}
		}()
		if err := next(ctx, spec, stream); err != nil {
			return a.rpcError(ctx, spec.Procedure, err)
		}
		return nil
	}
}

func (a *api) rpcError(ctx context.Context, procedure string, err error) *connect.Error {
	var own *connect.Error
	switch refused := refusalOf(err); {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, "the call was cancelled")
	case ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, "the call's deadline passed")
	case errors.As(err, &own) && !own.IsRemote() && !errors.Is(err, errNoMemory):
		return addReason(own) // of the transport: what it wraps came from the caller's connection, not from the database
	case refused != nil:
		setRetryAfter(ctx, refused.retry)
		return refused.rpcError()
	}
	return a.internalError(ctx, procedure, err)
}

// setRetryAfter tells clients and proxies that know HTTP alone what RetryInfo says. A stream that has begun has its headers already.
func setRetryAfter(ctx context.Context, wait time.Duration) {
	if call, ok := connect.CallInfoForServerContext(ctx); ok && wait > 0 {
		call.ResponseHeader().Set("Retry-After", wholeSeconds(wait))
	}
}

// addReason completes errors that Connect and the generated code make themselves.
func addReason(err *connect.Error) *connect.Error {
	if len(err.Details()) > 0 {
		return err
	}
	switch err.Code() {
	case connect.CodeInvalidArgument:
		return withDetails(err, &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST})
	case connect.CodeUnimplemented:
		return withDetails(err, &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_NOT_IMPLEMENTED})
	case connect.CodeResourceExhausted:
		return withDetails(err, &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_PAYLOAD_TOO_LARGE})
	}
	return err
}

// internalError logs an error of the server's own under a correlation id, which is all that the caller gets to know.
func (a *api) internalError(ctx context.Context, procedure string, err error) *connect.Error {
	r := refuse(kapselv1.ErrorReason_ERROR_REASON_INTERNAL, "internal error; correlation id %s", a.logInternal(ctx, procedure, err))
	return r.rpcError()
}

func (a *api) logInternal(ctx context.Context, operation string, err error) (correlationID string) {
	correlationID = id.New().String()
	a.Logger.ErrorContext(ctx, "internal error", "operation", operation, "correlation_id", correlationID, "error", err)
	return correlationID
}
