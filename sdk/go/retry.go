package kapsel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// Retry says how calls are tried again. What may be tried again is decided by the client: calls without side effects, webhooks with an
// idempotency key, and reports of a listening session, after a broken connection or UNAVAILABLE; anything that the server refused before it
// had an effect (RESOURCE_EXHAUSTED with RetryInfo). The server's RetryInfo is the least wait.
type Retry struct {
	// MaxAttempts is the number of tries in all. 1: none is repeated.
	MaxAttempts int
	// InitialWait is the longest wait before the second try; it doubles with each try, up to MaxWait. Waits are drawn from 0 on, so
	// that clients that failed together do not come back together.
	InitialWait, MaxWait time.Duration
}

// DefaultRetry is that of New.
var DefaultRetry = Retry{MaxAttempts: 5, InitialWait: 100 * time.Millisecond, MaxWait: 5 * time.Second}

// wait is how long to wait after n tries that failed.
func (r Retry) wait(n int, err error) time.Duration {
	asked, _ := RetryDelay(err)
	bound := r.MaxWait
	if n < 30 {
		bound = min(bound, r.InitialWait<<(n-1))
	}
	if bound <= 0 {
		return asked
	}
	return asked + time.Duration(mathrand.Int64N(int64(bound)))
}

// again says whether a call may be repeated after its n-th try, in time for its deadline, and waits until then.
func (r Retry) again(ctx context.Context, n int, repeatable bool, err error) bool {
	_, asked := RetryDelay(err)
	refused := connect.CodeOf(err) == connect.CodeResourceExhausted && asked
	if n >= r.MaxAttempts || ctx.Err() != nil || !refused && !(repeatable && transient(err)) {
		return false
	}
	wait := r.wait(n, err)
	if deadline, found := ctx.Deadline(); found && time.Until(deadline) <= wait {
		return false
	}
	return sleep(ctx, wait) == nil
}

func (r Retry) intercept(timeout time.Duration) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if spec.StreamType != connect.StreamTypeUnary {
				return next(ctx, spec)
			}
			cancel := context.CancelFunc(func() {})
			if _, bounded := ctx.Deadline(); !bounded && timeout > 0 {
				ctx, cancel = context.WithTimeout(ctx, timeout)
			}
			return &call{ctx: ctx, cancel: cancel, spec: spec, next: next, retry: r}, nil
		}
	}
}

// call is a unary call on its way, of one try or several. Connect uses a unary stream in one order: Send, CloseSend, Receive until io.EOF.
type call struct {
	ctx    context.Context
	cancel context.CancelFunc
	spec   connect.Spec
	next   connect.ClientFunc
	retry  Retry

	stream     connect.ClientStream // nil: the try has not begun
	request    any
	repeatable bool
	received   bool
}

func (c *call) SendHeaders() error { return nil }

func (c *call) Send(message any) error {
	c.request, c.repeatable = prepare(c.spec, message)
	return nil
}

func (c *call) CloseSend() error { return nil }

func (c *call) Receive(message any) error {
	if c.received {
		err := c.stream.Receive(message)
		if err != nil {
			c.cancel()
		}
		return err
	}
	for n := 1; ; n++ {
		err := c.try(message)
		if err == nil {
			c.received = true
			return nil
		}
		if c.stream != nil {
			c.stream.Close()
		}
		if !c.retry.again(c.ctx, n, c.repeatable, err) {
			if ended := c.ctx.Err(); errors.Is(ended, context.Canceled) && !errors.Is(err, context.Canceled) { // while it waited
				err = connect.NewError(connect.CodeCanceled, ended.Error()).WithCause(fmt.Errorf("%w: %w", ended, err))
			}
			c.cancel()
			return err
		}
	}
}

func (c *call) try(message any) (err error) {
	if c.stream, err = c.next(c.ctx, c.spec); err != nil {
		return err
	}
	// io.EOF says that the server has answered already: Receive has the answer.
	if err := c.stream.Send(c.request); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := c.stream.CloseSend(); err != nil {
		return err
	}
	err = c.stream.Receive(message)
	if err != nil && c.ctx.Err() == nil {
		return asUnavailable(err)
	}
	return err
}

func (c *call) Close() error {
	defer c.cancel()
	if c.stream == nil {
		return nil
	}
	return c.stream.Close()
}

// prepare says whether a call may be repeated, and gives webhooks without a key of their own one, the same for all tries.
func prepare(spec connect.Spec, message any) (prepared any, repeatable bool) {
	if spec.IdempotencyLevel != connect.IdempotencyUnknown {
		return message, true
	}
	switch request := message.(type) {
	case *kapselv1.IngestRequest:
		request = withKey(request)
		return request, hasKey(request)
	case *kapselv1.IngestBatchRequest:
		keyed := &kapselv1.IngestBatchRequest{Webhooks: make([]*kapselv1.IngestRequest, len(request.Webhooks))}
		for i, webhook := range request.Webhooks {
			keyed.Webhooks[i] = withKey(webhook)
		}
		return keyed, !slices.ContainsFunc(keyed.Webhooks, func(w *kapselv1.IngestRequest) bool { return !hasKey(w) })
	case *kapselv1.ReportRequest:
		return request, true // the same result twice is no error
	}
	return message, false
}

// withKey leaves webhooks with other headers than Content-Type as they are: a key of their provider's may be in them, which must stay
// what counts. The caller's message is not changed, and its payload not copied.
func withKey(webhook *kapselv1.IngestRequest) *kapselv1.IngestRequest {
	for _, header := range webhook.GetHeaders() {
		if !strings.EqualFold(header.GetName(), "Content-Type") {
			return webhook
		}
	}
	keyed := &kapselv1.IngestRequest{EndpointId: webhook.GetEndpointId(), Payload: webhook.GetPayload()}
	for _, header := range webhook.GetHeaders() {
		keyed.Headers = append(keyed.Headers, proto.CloneOf(header))
	}
	keyed.Headers = append(keyed.Headers, &kapselv1.Header{Name: "Idempotency-Key", Value: rand.Text()})
	return keyed
}

func hasKey(webhook *kapselv1.IngestRequest) bool {
	return slices.ContainsFunc(webhook.GetHeaders(), func(h *kapselv1.Header) bool {
		switch strings.ToLower(h.GetName()) {
		case "idempotency-key", "x-idempotency-key", "webhook-id":
			return true
		}
		return false
	})
}

// sleep waits, and returns ctx's error if that ends first.
func sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
