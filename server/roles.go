package server

import (
	"context"
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// A node may leave intake or the API to other nodes (Deps). What comes here all the same was sent to the wrong node: it is
// refused as unavailable, which every source and client repeats, and never as unknown, which some take for final.

const (
	intakeElsewhere = "this node takes no webhooks in: have the balancer send /ingest and IngestService to nodes with the role ingest"
	apiElsewhere    = "this node does not serve the API and the log: have the balancer send them to nodes with the role api"
)

// isIntake reports whether a procedure is one of IngestService.
func isIntake(procedure string) bool {
	return strings.HasPrefix(strings.TrimPrefix(procedure, "/"), kapselv1connect.IngestServiceName+"/")
}

// servedHere reports whether rpcs of intake, or all others, are answered by this node.
func (a *api) servedHere(procedure string) bool {
	if isIntake(procedure) {
		return !a.IntakeElsewhere
	}
	return !a.APIElsewhere
}

// refuseElsewhere refuses the rpcs of roles that this node has not.
func (a *api) refuseElsewhere(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if a.servedHere(spec.Procedure) {
			return next(ctx, spec, stream)
		}
		message := apiElsewhere
		if isIntake(spec.Procedure) {
			message = intakeElsewhere
		}
		return &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_SERVED_ELSEWHERE, message: message, retry: overloadedRetry}
	}
}

// elsewhere answers plain HTTP requests that are for other nodes.
func elsewhere(detail string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p := &problem{status: http.StatusServiceUnavailable, reason: kapselv1.ErrorReason_ERROR_REASON_SERVED_ELSEWHERE, detail: detail, retry: overloadedRetry, closes: true}
		p.write(w, id.New().String())
	})
}
