package kapsel

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
)

// domain of the reasons in errors that Kapsel itself answered.
const domain = "kapsel.dev"

// Reason is the stable cause of an error that Kapsel answered, such as "ENDPOINT_NOT_FOUND": the names of the contract's ErrorReason
// without their prefix. It is empty for errors of another origin, such as the network or a proxy.
func Reason(err error) string {
	if info := detail[*errdetails.ErrorInfo](err); info.GetDomain() == domain {
		return info.GetReason()
	}
	return ""
}

// RetryDelay is how long the server asks to wait before trying again, and false if it does not say.
func RetryDelay(err error) (time.Duration, bool) {
	info := detail[*errdetails.RetryInfo](err)
	return max(info.GetRetryDelay().AsDuration(), 0), info != nil
}

// Violations are the fields of a request that were wrong, each with what is wrong with it.
func Violations(err error) []*errdetails.BadRequest_FieldViolation {
	return detail[*errdetails.BadRequest](err).GetFieldViolations()
}

func detail[T any](err error) (none T) {
	var connectErr *connect.Error
	if !errors.As(err, &connectErr) {
		return none
	}
	for _, d := range connectErr.Details() {
		if message, err := connectproto.UnmarshalErrorDetail(d); err == nil {
			if found, ok := message.(T); ok {
				return found
			}
		}
	}
	return none
}

// transient says whether what failed is the way to a server, or the server for the moment.
func transient(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	return connect.CodeOf(err) == connect.CodeUnavailable
}

// asUnavailable gives the error of a connection that broke while nobody canceled the call the code that says so. Connect takes a
// reset for a cancellation by the other side, which only a server can, an answer that is cut short for a wrong one, and has codes for
// everybody's bugs for what a proxy makes of either.
func asUnavailable(err error) error {
	var connectErr *connect.Error
	if !errors.As(err, &connectErr) || connectErr.IsRemote() || errors.Is(err, context.Canceled) {
		return err
	}
	below := connectErr.Unwrap()
	switch connectErr.Code() {
	case connect.CodeCanceled, connect.CodeUnknown, connect.CodeInternal:
		if below == nil { // an answer that came whole, of something else than Kapsel
			return err
		}
	default:
		if !errors.Is(below, io.ErrUnexpectedEOF) {
			return err
		}
	}
	return connect.NewError(connect.CodeUnavailable, connectErr.Message()).WithCause(err)
}
