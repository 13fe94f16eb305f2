package delivery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"code.dny.dev/ssrf"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/ledger"
)

func fail(a *ledger.Attempt, failure leafv1.Failure, err error) {
	a.Outcome, a.Failure, a.Diagnosis = leafv1.Outcome_OUTCOME_FAILED, failure, diagnose(failure, err)
}

// diagnose says in a sentence what went wrong and, where the reader can do something, what.
func diagnose(failure leafv1.Failure, err error) string {
	text := withoutOurs(err)
	switch failure {
	case leafv1.Failure_FAILURE_BLOCKED_ADDRESS:
		return text + ": the address is not allowed; an operator can allow its range with --allow-destinations"
	case leafv1.Failure_FAILURE_TIMEOUT:
		return "no answer within the destination's timeout: " + text
	default:
		return text
	}
}

// withoutOurs is an error's text without the addresses of this node, of its name server and of the egress proxy: tenants read it.
func withoutOurs(err error) string {
	text := err.Error()
	var dnsError *net.DNSError
	var opError *net.OpError
	var ofProxy *proxyError
	errors.As(err, &ofProxy)
	if errors.As(err, &dnsError) {
		text = strings.ReplaceAll(text, " on "+dnsError.Server, "")
		if ofProxy != nil {
			text = strings.ReplaceAll(text, " "+dnsError.Name, "")
		}
	}
	if errors.As(err, &opError) {
		if opError.Source != nil { // alone, or before the other side's
			text = strings.ReplaceAll(strings.ReplaceAll(text, opError.Source.String()+"->", ""), " "+opError.Source.String(), "")
		}
		if ofProxy != nil && opError.Addr != nil {
			text = strings.ReplaceAll(text, " "+opError.Addr.String(), "")
		}
	}
	return text
}

// classify sorts a transport error. Every class is retried: a wrong DNS entry or certificate is mended in minutes.
func classify(err error) leafv1.Failure {
	var dnsError *net.DNSError
	var recordError tls.RecordHeaderError
	var alertError tls.AlertError
	var certificateError *tls.CertificateVerificationError
	var hostnameError x509.HostnameError
	var opError *net.OpError
	var proxyErr *proxyError
	var tokenErr *errToken
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP), errors.Is(err, ssrf.ErrProhibitedPort), errors.Is(err, ssrf.ErrProhibitedNetwork):
		return leafv1.Failure_FAILURE_BLOCKED_ADDRESS
	case errors.As(err, &tokenErr):
		return leafv1.Failure_FAILURE_AUTHORIZATION
	case errors.As(err, &proxyErr) && !isTimeout(err):
		return leafv1.Failure_FAILURE_CONNECT
	case errors.As(err, &dnsError):
		return leafv1.Failure_FAILURE_DNS
	case errors.As(err, &certificateError), errors.As(err, &hostnameError), errors.As(err, &recordError), errors.As(err, &alertError),
		errors.As(err, &opError) && opError.Op == "remote error": // an alert, which TLS 1.3 sends after the handshake for a client certificate
		return leafv1.Failure_FAILURE_TLS
	case isTimeout(err):
		return leafv1.Failure_FAILURE_TIMEOUT
	case errors.As(err, &opError) && opError.Op == "dial":
		return leafv1.Failure_FAILURE_CONNECT
	default:
		return leafv1.Failure_FAILURE_PROTOCOL
	}
}

// isTimeout reports whether time ran out: the context's, the connection's, or the system's for connecting.
func isTimeout(err error) bool {
	var opError *net.OpError
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &opError) && opError.Op == "dial" && opError.Timeout()
}

// ownWords is the diagnosis of an attempt without anything that the destination said, which may repeat the payload. What is
// kept of a destination's health, its events and the audit log is not erased with an event, nor is a line of the process's log.
func ownWords(a *ledger.Attempt) string {
	switch a.Failure {
	case leafv1.Failure_FAILURE_STATUS:
		text := "status " + strconv.Itoa(a.StatusCode)
		if a.StatusCode >= 300 && a.StatusCode <= 399 {
			text += ": redirects are not followed"
		}
		return text
	case leafv1.Failure_FAILURE_PROTOCOL:
		return "the connection broke, or what came was not HTTP: the attempt says more"
	default: // nothing had been answered, or nothing had been sent
		return a.Diagnosis
	}
}

// diagnoseStatus says what a status that is no success means here, where that is not plain.
func diagnoseStatus(response *http.Response) string {
	text := "status " + strconv.Itoa(response.StatusCode)
	switch {
	case response.StatusCode == http.StatusSwitchingProtocols:
		return text + ": the destination wants another protocol, which a delivery does not speak"
	case response.StatusCode >= 300 && response.StatusCode <= 399:
		text += ": redirects are not followed"
		if location := response.Header.Get("Location"); location != "" {
			text += fmt.Sprintf("; set the destination's url to where it leads, if that is right: %.300q", location)
		}
	}
	return text
}
