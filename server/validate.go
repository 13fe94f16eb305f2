package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

const (
	// maxFieldViolations bounds an answer to a batch that is wrong a thousand times.
	maxFieldViolations = 50
	// maxExplainedBytes is the largest message of which more than the first violation is named: each takes half a KiB, and can be
	// of two bytes.
	maxExplainedBytes = 64 << 10
)

// validate holds each request message against the rules of the contract, and answers with the fields that break them.
func validate(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		return next(ctx, spec, validatedStream{stream})
	}
}

type validatedStream struct{ connect.ServerStream }

func (s validatedStream) Receive(message any) error {
	if err := s.ServerStream.Receive(message); err != nil {
		return err
	}
	request, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("request is a %T, not a protobuf message", message)
	}
	return checkRules(request, "")
}

// checkRules holds a message against the rules of the contract. parent is the field that it stands in, "" for a request.
func checkRules(message proto.Message, parent string) error {
	err := protovalidate.Validate(message, protovalidate.WithFailFast())
	if err != nil && proto.Size(message) <= maxExplainedBytes {
		err = protovalidate.Validate(message)
	}
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) {
		return err
	}
	r := refuse(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "the request breaks a rule of its fields")
	for i, violation := range invalid.Violations {
		if i == maxFieldViolations {
			break
		}
		field := strings.Trim(parent+"."+protovalidate.FieldPathString(violation.Proto.GetField()), ".")
		if i == 0 {
			r.message = violation.Proto.GetMessage()
			if field != "" {
				r.message = field + ": " + r.message
			}
		}
		r.fields = append(r.fields, &errdetails.BadRequest_FieldViolation{Field: field, Description: violation.Proto.GetMessage()})
	}
	return r
}
