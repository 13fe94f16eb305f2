package kapsel

import (
	"context"
	"fmt"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// maxReportTime is the longest duration that the contract lets a report have.
const maxReportTime = 10 * time.Minute

// ListenOptions say how a session is kept up.
type ListenOptions struct {
	Stream
	// OnSession is told of the session each time the stream is up. Only a new one comes with the secret that its webhooks are
	// signed with, for a Verifier.
	OnSession func(*kapselv1.ListenSession)
}

// Incoming is a delivery that came down a session, to be reported by Forward, Answer or Fail before its ReportDeadline. Its methods may be
// called while the loop goes on.
type Incoming struct {
	Delivery *kapselv1.ListenDelivery

	client  *Client
	session string
	came    time.Time
}

// ListenDeliveries opens a session, or resumes the one that the request names, and follows its deliveries: each is one more attempt of
// its event, whose result is what is reported of it. Interruptions are bridged, in the same session. What was sent and not
// reported then is an attempt of unknown outcome and comes again, so deliveries come at least once. It ends with ctx, or with an error as the last
// element; the session can be resumed for 10 minutes.
//
// The server sends up to the request's MaxInFlight, 10 by default, without a report: report them concurrently, or set it to 1.
func (c *Client) ListenDeliveries(ctx context.Context, request *kapselv1.ListenRequest, options ListenOptions) iter.Seq2[*Incoming, error] {
	return func(yield func(*Incoming, error) bool) {
		request := proto.CloneOf(request)
		open := func(ctx context.Context) (Receiver[*kapselv1.ListenResponse], error) {
			return c.Listen.Listen(ctx, request)
		}
		for message, err := range Resume(ctx, options.Stream, false, open, func(*kapselv1.ListenResponse) {}) {
			if err != nil {
				yield(nil, err)
				return
			}
			if session := message.GetSession(); session != nil {
				request.SessionId = session.Id
				if options.OnSession != nil {
					options.OnSession(session)
				}
			}
			delivery := message.GetDelivery()
			if delivery != nil && !yield(&Incoming{Delivery: delivery, client: c, session: request.SessionId, came: time.Now()}, nil) {
				return
			}
		}
	}
}

// Answer reports what the app answered; a status of 2xx is success. Of the body the first 64 KiB are hashed, and 1 KiB is kept. It returns when
// the attempt is recorded. REPORT_TOO_LATE and ATTEMPT_NOT_FOUND say that it was recorded without this result: it comes again.
func (i *Incoming) Answer(ctx context.Context, status int, body []byte) error {
	report := i.newReport(i.came)
	report.Result = answered(status, body)
	return i.report(ctx, report, i.came)
}

// Fail reports that the app did not answer, and why: DNS, CONNECT, TLS, TIMEOUT, PROTOCOL or CONFIGURATION, with at most 1024 characters for
// people. Its errors are those of Answer.
func (i *Incoming) Fail(ctx context.Context, failure leafv1.Failure, message string) error {
	report := i.newReport(i.came)
	report.Result = failed(failure, message)
	return i.report(ctx, report, i.came)
}

func (i *Incoming) newReport(began time.Time) *kapselv1.ReportRequest {
	return &kapselv1.ReportRequest{SessionId: i.session, AttemptId: i.Delivery.GetAttemptId(), StartTime: timestamppb.New(began)}
}

func (i *Incoming) report(ctx context.Context, report *kapselv1.ReportRequest, began time.Time) error {
	report.Duration = durationpb.New(min(time.Since(began), maxReportTime))
	if _, err := i.client.Listen.Report(ctx, report); err != nil {
		return fmt.Errorf("report %s: %w", report.AttemptId, err)
	}
	return nil
}
