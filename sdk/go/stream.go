package kapsel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"connectrpc.com/connect/v2"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// silence of a stream that counts as a broken connection: the contract promises a heartbeat at least every 15 seconds.
const silence = 45 * time.Second

// toldStates of events are remembered, so that what the server tells again after an interruption is not told again here.
const toldStates = 10_000

// Stream says how a stream is kept up. The zero value has the defaults.
type Stream struct {
	// Retry of connecting. Default: waits of 100 ms to 10 s, as often as it takes. They begin anew once something has come.
	Retry Retry
	// OnOpen is called when the stream is up, each time: what happens from then on is told.
	OnOpen func()
	// OnInterruption is told of each interruption, and how long the wait before the next try is.
	OnInterruption func(err error, wait time.Duration)
}

// Receiver is an open stream of messages.
type Receiver[M any] interface {
	// Receive returns the next message, and an error that is io.EOF at the end.
	Receive() (M, error)
	Close() error
}

// Resume reads a stream of the server that can be resumed, over as many connections as it takes, until ctx ends, the loop does, or an error
// comes that connecting again would not mend: that is the last element. open opens the stream where the last message that was dealt
// with has left it; a message has been dealt with when the loop's body has ended, and done is called with it then. A stream that is
// finite, as an export, ends when the server ends it; when ctx ends first, ctx's error is the last element, since what came is not all.
func Resume[M any](ctx context.Context, options Stream, finite bool, open func(context.Context) (Receiver[M], error), done func(M)) iter.Seq2[M, error] {
	if options.Retry == (Retry{}) {
		options.Retry = Retry{InitialWait: 100 * time.Millisecond, MaxWait: 10 * time.Second}
	}
	return func(yield func(M, error) bool) {
		var none M
		for failures := 0; ctx.Err() == nil; {
			received, stopped, err := receive(ctx, options, open, done, yield)
			if stopped || finite && errors.Is(err, io.EOF) {
				return
			}
			if ctx.Err() != nil {
				break
			}
			err = asUnavailable(err)
			if received {
				failures = 0
			}
			failures++
			if final(err) || options.Retry.MaxAttempts > 0 && failures >= options.Retry.MaxAttempts {
				yield(none, err)
				return
			}
			wait := min(options.Retry.wait(failures, err), 2*options.Retry.MaxWait)
			if options.OnInterruption != nil {
				options.OnInterruption(err, wait)
			}
			if sleep(ctx, wait) != nil {
				break
			}
		}
		if finite {
			yield(none, ctx.Err())
		}
	}
}

// receive reads one connection until it ends, by an error, or stopped by the loop.
func receive[M any](ctx context.Context, options Stream, open func(context.Context) (Receiver[M], error), done func(M), yield func(M, error) bool) (received, stopped bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	stream, err := open(ctx)
	if err != nil {
		return false, false, err
	}
	defer stream.Close()
	for {
		message, err := stream.Receive()
		if err != nil {
			if context.Cause(ctx) == errSilent {
				err = errSilent
			}
			return received, false, err
		}
		watchdog.Stop() // the loop's body may take its time
		if !received && options.OnOpen != nil {
			options.OnOpen()
		}
		received = true
		if !yield(message, nil) {
			return true, true, nil
		}
		done(message)
		watchdog.Reset(silence)
	}
}

var errSilent = connect.NewError(connect.CodeUnavailable, "the stream was silent for too long")

// final says that connecting again would not mend it: Kapsel itself refused, or it is another server.
func final(err error) bool {
	code := connect.CodeOf(err)
	if Reason(err) != "" {
		return code != connect.CodeUnavailable && code != connect.CodeResourceExhausted && code != connect.CodeInternal
	}
	switch code {
	case connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeUnimplemented, connect.CodeNotFound, connect.CodeInvalidArgument:
		return true
	}
	return false
}

// WatchEvents follows events: each one as it is accepted, and again whenever its state changes. Interruptions are bridged: what happened
// meanwhile follows, and nothing that was told comes twice. It ends with ctx, or with an error as the last element.
func (c *Client) WatchEvents(ctx context.Context, filter *kapselv1.EventFilter, options Stream) iter.Seq2[*kapselv1.Event, error] {
	return func(yield func(*kapselv1.Event, error) bool) {
		token := ""
		told := newMemory()
		open := func(ctx context.Context) (Receiver[*kapselv1.WatchEventsResponse], error) {
			return c.Events.WatchEvents(ctx, &kapselv1.WatchEventsRequest{Filter: filter, ResumeToken: token})
		}
		done := func(message *kapselv1.WatchEventsResponse) { token = message.ResumeToken }
		for message, err := range Resume(ctx, options, false, open, done) {
			if err != nil {
				yield(nil, err)
				return
			}
			if event := message.GetEvent(); event != nil && told.news(event) && !yield(event, nil) {
				return
			}
		}
	}
}

// memory of the states that were told last, of a bounded number of events.
type memory struct {
	states map[string]kapselv1.EventState
	order  []string // the oldest first
}

func newMemory() *memory { return &memory{states: make(map[string]kapselv1.EventState)} }

func (m *memory) news(event *kapselv1.Event) bool {
	last, known := m.states[event.Id]
	if known && last == event.State {
		return false
	}
	if !known {
		if len(m.order) == toldStates {
			delete(m.states, m.order[0])
			m.order = m.order[1:]
		}
		m.order = append(m.order, event.Id)
	}
	m.states[event.Id] = event.State
	return true
}

// WatchTreeHeads follows the heads of a log, each with the proof that it continues the one before. knownSize is the size of the last head
// that was checked before, nil for none. A head counts as checked when the loop's body has ended: break when a check fails. After
// an interruption the proofs go on from the last one that was checked. An empty logID is the log that new attempts go to.
func (c *Client) WatchTreeHeads(ctx context.Context, logID string, knownSize *int64, options Stream) iter.Seq2[*kapselv1.TreeHeadUpdate, error] {
	return func(yield func(*kapselv1.TreeHeadUpdate, error) bool) {
		known := knownSize
		open := func(ctx context.Context) (Receiver[*kapselv1.WatchTreeHeadsResponse], error) {
			return c.Attestation.WatchTreeHeads(ctx, &kapselv1.WatchTreeHeadsRequest{LogId: logID, KnownSize: known})
		}
		for message, err := range Resume(ctx, options, false, open, func(*kapselv1.WatchTreeHeadsResponse) {}) {
			if err != nil {
				yield(nil, err)
				return
			}
			update := message.GetHead()
			if update == nil {
				continue
			}
			size := update.GetTreeHead().GetTreeSize()
			if known != nil {
				if size == *known {
					continue
				}
				if from := update.GetConsistencyProof().GetFromSize(); size < *known || from != *known {
					yield(nil, fmt.Errorf("the log answered a head of %d leaves with a proof from %d to one who knows %d: keep both heads as evidence", size, from, *known))
					return
				}
			}
			if !yield(update, nil) {
				return
			}
			known = &size
		}
	}
}

// ExportProofPackages reads the proof packages that the request asks for, in the order of the log, each once. Interruptions are bridged. If
// the last element is no error, these were all.
func (c *Client) ExportProofPackages(ctx context.Context, request *kapselv1.ExportProofPackagesRequest, options Stream) iter.Seq2[*kapselv1.ProofPackage, error] {
	return func(yield func(*kapselv1.ProofPackage, error) bool) {
		token := request.GetResumeToken()
		open := func(ctx context.Context) (Receiver[*kapselv1.ExportProofPackagesResponse], error) {
			return c.Attestation.ExportProofPackages(ctx, &kapselv1.ExportProofPackagesRequest{
				Recorded: request.GetRecorded(), EndpointId: request.GetEndpointId(), DestinationId: request.GetDestinationId(), ResumeToken: token,
			})
		}
		done := func(message *kapselv1.ExportProofPackagesResponse) { token = message.ResumeToken }
		for message, err := range Resume(ctx, options, true, open, done) {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, p := range message.Packages {
				if !yield(p, nil) {
					return
				}
			}
		}
	}
}
