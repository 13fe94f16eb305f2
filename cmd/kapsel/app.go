package main

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

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

const (
	// appTimeout leaves time to report within the 30 s that the server waits.
	appTimeout = 25 * time.Second
	// What is read of an answer, and kept of it for people.
	maxAnswerBytes        = 64 << 10
	maxAnswerExcerptBytes = 1 << 10
	maxMessageRunes       = 1024
)

// app is what webhooks are forwarded to.
type app struct {
	url    string
	client *http.Client
}

func newApp(url string) *app {
	return &app{url: url, client: &http.Client{
		Timeout:       appTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// forward posts a webhook as the session's destination would get it, and says what came of it.
func (a *app) forward(ctx context.Context, delivery *kapselv1.ListenDelivery) *kapselv1.ReportRequest {
	started := time.Now()
	report := &kapselv1.ReportRequest{StartTime: timestamppb.New(started)}
	answer, err := a.post(ctx, delivery)
	report.Duration = durationpb.New(time.Since(started))
	if err != nil {
		message := []rune(oneLine(err))
		report.Result = &kapselv1.ReportRequest_Failure{Failure: &kapselv1.ListenFailure{
			Failure: failureOf(err), Message: strings.ToValidUTF8(string(message[:min(len(message), maxMessageRunes)]), "?"),
		}}
		return report
	}
	report.Result = &kapselv1.ReportRequest_Answer{Answer: answer}
	return report
}

func (a *app) post(ctx context.Context, delivery *kapselv1.ListenDelivery) (*kapselv1.ListenAnswer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(delivery.Payload))
	if err != nil {
		return nil, err
	}
	for _, h := range delivery.Headers {
		value := h.Value
		if len(h.RawValue) > 0 {
			value = string(h.RawValue)
		}
		request.Header[h.Name] = append(request.Header[h.Name], value)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1)) // the status is the answer, whatever its body comes to
	truncated := len(body) > maxAnswerBytes
	body = body[:min(len(body), maxAnswerBytes)]
	digest := sha256.Sum256(body)
	return &kapselv1.ListenAnswer{
		StatusCode: int32(response.StatusCode), BodySha256: digest[:], BodyBytes: int64(len(body)),
		BodyExcerpt: body[:min(len(body), maxAnswerExcerptBytes)], Truncated: truncated,
	}, nil
}

// failureOf is the class of an error of the transport.
func failureOf(err error) leafv1.Failure {
	var dns *net.DNSError
	var dial *net.OpError
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var timeout net.Error
	switch {
	case errors.As(err, &dns):
		return leafv1.Failure_FAILURE_DNS
	case errors.As(err, &certificate), errors.As(err, &record):
		return leafv1.Failure_FAILURE_TLS
	case errors.As(err, &dial) && dial.Op == "dial":
		return leafv1.Failure_FAILURE_CONNECT
	case errors.As(err, &timeout) && timeout.Timeout():
		return leafv1.Failure_FAILURE_TIMEOUT
	}
	return leafv1.Failure_FAILURE_PROTOCOL
}
