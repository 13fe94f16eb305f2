package server

import (
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5/pgconn"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

// error.proto is the one place that says which code a reason goes with.
func TestReasonsHaveTheCodesOfTheContract(t *testing.T) {
	contract := must(os.ReadFile("../proto/kapsel/v1/error.proto"))(t)
	codeOf := regexp.MustCompile(`^  // ([A-Z][A-Z_]+)(?: \([^)]*\))?: `)
	reasonOf := regexp.MustCompile(`^  (ERROR_REASON_[A-Z_]+) = `)
	found, want := 0, ""
	for line := range strings.Lines(string(contract)) {
		if match := codeOf.FindStringSubmatch(line); match != nil {
			want = match[1]
		} else if match := reasonOf.FindStringSubmatch(line); match != nil && want != "" {
			reason := kapselv1.ErrorReason(kapselv1.ErrorReason_value[match[1]])
			if got := strings.ToUpper(code(reason).String()); got != want {
				t.Errorf("%s: code %s, want %s", match[1], got, want)
			}
			found, want = found+1, ""
		}
	}
	if want := len(kapselv1.ErrorReason_name) - 1; found != want {
		t.Errorf("the contract says the code of %d reasons, want %d", found, want)
	}
}

func TestDatabaseErrorsThatAreNotTheServers(t *testing.T) {
	for state, want := range map[string]kapselv1.ErrorReason{
		"57P01": kapselv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "57P03": kapselv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE,
		"53300": kapselv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "08006": kapselv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE,
		"25006": kapselv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE,
		"22021": kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "22P05": kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST,
	} {
		if got := refusalOf(&pgconn.PgError{Code: state}); got == nil || got.reason != want {
			t.Errorf("%s: got %+v, want %v", state, got, want)
		}
	}
	for _, state := range []string{"42P01", "23505", "42501"} {
		if got := refusalOf(&pgconn.PgError{Code: state}); got != nil {
			t.Errorf("%s: the caller is told %+v", state, got)
		}
	}
}

func TestBrokenCallIsNotBlamedOnTheDatabase(t *testing.T) {
	a := new(api)
	for _, cause := range []error{os.ErrDeadlineExceeded, io.ErrUnexpectedEOF} {
		err := connect.NewError(connect.CodeInvalidArgument, "read body").WithCause(cause)
		wantReason(t, a.rpcError(t.Context(), "/kapsel.v1.X/Y", err), connect.CodeInvalidArgument, "INVALID_REQUEST")
	}
	wantReason(t, a.rpcError(t.Context(), "/kapsel.v1.X/Y", fmt.Errorf("read events: %w", io.ErrUnexpectedEOF)), connect.CodeUnavailable, "STORE_UNAVAILABLE")
}

func TestUnimplementedHasAReason(t *testing.T) {
	wantReason(t, addReason(connect.NewError(connect.CodeUnimplemented, "not built")), connect.CodeUnimplemented, "NOT_IMPLEMENTED")
}
