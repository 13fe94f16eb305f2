package delivery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"

	"code.dny.dev/ssrf"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/ledger"
)

func fail(a *ledger.Attempt, failure leafv1.Failure, err error) {
	a.Outcome, a.Failure, a.Diagnosis = leafv1.Outcome_OUTCOME_FAILED, failure, diagnose(failure, err)
}

// diagnose says in a sentence what went wrong and, where the reader can do something, what.
func diagnose(failure leafv1.Failure, err error) string {
	switch failure {
	case leafv1.Failure_FAILURE_BLOCKED_ADDRESS:
		return err.Error() + ": the address is not allowed; an operator can allow its range with --allow-destinations"
	case leafv1.Failure_FAILURE_TIMEOUT:
		return "no answer within the destination's timeout: " + err.Error()
	default:
		return err.Error()
	}
}

// classify sorts a transport error. Every class is retried: a wrong DNS entry or certificate is mended in minutes.
func classify(err error) leafv1.Failure {
	var dnsError *net.DNSError
	var recordError tls.RecordHeaderError
	var alertError tls.AlertError
	var certificateError *tls.CertificateVerificationError
	var hostnameError x509.HostnameError
	var opError *net.OpError
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP), errors.Is(err, ssrf.ErrProhibitedPort), errors.Is(err, ssrf.ErrProhibitedNetwork):
		return leafv1.Failure_FAILURE_BLOCKED_ADDRESS
	case errors.As(err, &dnsError):
		return leafv1.Failure_FAILURE_DNS
	case errors.As(err, &certificateError), errors.As(err, &hostnameError), errors.As(err, &recordError), errors.As(err, &alertError):
		return leafv1.Failure_FAILURE_TLS
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return leafv1.Failure_FAILURE_TIMEOUT
	case errors.As(err, &opError) && opError.Op == "dial":
		if opError.Timeout() {
			return leafv1.Failure_FAILURE_TIMEOUT
		}
		return leafv1.Failure_FAILURE_CONNECT
	default:
		return leafv1.Failure_FAILURE_PROTOCOL
	}
}
