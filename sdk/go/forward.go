package kapsel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

const (
	// forwardTime leaves time to report within the 30 s that the server waits.
	forwardTime = 25 * time.Second
	// What is read of an answer, and kept of it for people.
	maxAnswerBytes        = 64 << 10
	maxAnswerExcerptBytes = 1 << 10
	maxMessageRunes       = 1024
)

// Forward posts the webhook to an app as a destination would get it, and reports what came of it: the status whatever it is, or why there was
// none. A nil client is one that waits 25 s and follows no redirect, as the service does. What was to be reported is returned also with
// an error, which is that of Report.
func (i *Incoming) Forward(ctx context.Context, client *http.Client, url string) (*kapselv1.ReportRequest, error) {
	if client == nil {
		client = &http.Client{
			Timeout:       forwardTime,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	began := time.Now()
	report := i.newReport(began)
	if status, body, err := i.post(ctx, client, url); err != nil {
		report.Result = failed(failureOf(err), err.Error())
	} else {
		report.Result = answered(status, body)
	}
	return report, i.report(ctx, report, began)
}

func (i *Incoming) post(ctx context.Context, client *http.Client, url string) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(i.Delivery.GetPayload()))
	if err != nil {
		return 0, nil, err
	}
	request.Header = i.Header()
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusSwitchingProtocols { // its body is the connection, without a deadline
		return response.StatusCode, nil, nil
	}
	body, _ = io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1)) // the status is the answer, whatever its body comes to
	return response.StatusCode, body, nil
}

// Header is what a destination gets with the webhook: its own header, and the signature's.
func (i *Incoming) Header() http.Header {
	header := make(http.Header)
	for _, h := range i.Delivery.GetHeaders() {
		value := h.Value
		if len(h.RawValue) > 0 {
			value = string(h.RawValue)
		}
		header[h.Name] = append(header[h.Name], value)
	}
	return header
}

func answered(status int, body []byte) *kapselv1.ReportRequest_Answer {
	truncated := len(body) > maxAnswerBytes
	body = body[:min(len(body), maxAnswerBytes)]
	digest := sha256.Sum256(body)
	return &kapselv1.ReportRequest_Answer{Answer: &kapselv1.ListenAnswer{
		StatusCode: int32(status), BodySha256: digest[:], BodyBytes: int64(len(body)),
		BodyExcerpt: body[:min(len(body), maxAnswerExcerptBytes)], Truncated: truncated,
	}}
}

func failed(failure leafv1.Failure, message string) *kapselv1.ReportRequest_Failure {
	runes := []rune(strings.ToValidUTF8(message, "?"))
	return &kapselv1.ReportRequest_Failure{Failure: &kapselv1.ListenFailure{
		Failure: failure, Message: string(runes[:min(len(runes), maxMessageRunes)]),
	}}
}

// failureOf is the class of an error of the transport.
func failureOf(err error) leafv1.Failure {
	var dns *net.DNSError
	var dial *net.OpError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var certificate *tls.CertificateVerificationError
	var timeout net.Error
	switch {
	case errors.As(err, &dns):
		return leafv1.Failure_FAILURE_DNS
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert), errors.Is(err, http.ErrSchemeMismatch):
		return leafv1.Failure_FAILURE_TLS
	case errors.As(err, &dial) && dial.Op == "dial":
		return leafv1.Failure_FAILURE_CONNECT
	case errors.As(err, &timeout) && timeout.Timeout():
		return leafv1.Failure_FAILURE_TIMEOUT
	}
	return leafv1.Failure_FAILURE_PROTOCOL
}
