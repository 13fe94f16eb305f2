package server

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/watch"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// resumeAge is how old a token may be. Beyond it too much would have to be gone through.
	resumeAge = time.Hour
	// toldStates of events are remembered by a stream, so that it says what changed and not what was looked at.
	toldStates = 10_000
)

// eventStream is one WatchEvents call.
type eventStream struct {
	*eventService
	stream   kapselv1connect.EventServiceWatchEventsServerStream
	tenantID uuid.UUID
	filter   *kapselv1.EventFilter
	tag      [filterTagBytes]byte
	position watch.Position
	lasting  *lastingStream
	told     map[string]kapselv1.EventState
	order    []string // of told, the oldest first
}

func (s *eventService) WatchEvents(ctx context.Context, request *kapselv1.WatchEventsRequest, stream kapselv1connect.EventServiceWatchEventsServerStream) error {
	e := &eventStream{
		eventService: s, stream: stream, tenantID: caller(ctx).TenantID, filter: request.Filter, tag: filterTag(request),
		lasting: lasting(ctx), told: make(map[string]kapselv1.EventState),
	}
	leave, err := s.Watch.Join(e.tenantID)
	if err != nil {
		return &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_OVERLOADED, retry: overloadedRetry,
			message: "there are as many streams of events as there may be: close one, or come again"}
	}
	defer leave()
	watcher := s.Watch.Watch(e.tenantID)
	if err := e.begin(ctx, request.ResumeToken); err != nil {
		return err
	}
	return e.run(ctx, watcher)
}

// begin finds out where the stream begins, and says so at once.
func (e *eventStream) begin(ctx context.Context, token string) (err error) {
	if token != "" {
		if e.position, err = e.parseToken(token); err != nil {
			return err
		}
	} else if err := e.DB.AsTenant(ctx, e.tenantID, func(tx pgx.Tx) error {
		e.position, err = watch.Tip(ctx, e.DB.Queries, tx, e.Reader.LogID())
		return err
	}); err != nil {
		return err
	}
	return e.heartbeat()
}

// run tells what changes until the client leaves or the node stops.
func (e *eventStream) run(ctx context.Context, watcher *watch.Watcher) error {
	beat := time.NewTicker(heartbeatInterval)
	defer beat.Stop()
	for behind := true; ; {
		if behind {
			more, sent, err := e.step(ctx)
			if err != nil {
				return err
			}
			if sent {
				beat.Reset(heartbeatInterval)
			}
			if more {
				select {
				case <-beat.C: // nothing of all that was looked at met the filter
					if err := e.heartbeat(); err != nil {
						return err
					}
				case <-e.Stopping:
					return &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_SHUTTING_DOWN, retry: overloadedRetry, message: "the node is stopping: watch again, with the last resume_token"}
				default:
				}
				continue
			}
		}
		looked, changed := watcher.Next(&e.position)
		if behind = changed; changed {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.Stopping:
			return &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_SHUTTING_DOWN, retry: overloadedRetry, message: "the node is stopping: watch again, with the last resume_token"}
		case <-looked:
		case <-beat.C:
			if err := e.heartbeat(); err != nil {
				return err
			}
		}
	}
}

// step goes on from the position, and tells what has changed. Only with the last event of the step does the token move on.
func (e *eventStream) step(ctx context.Context) (more, sent bool, err error) {
	var events []*kapselv1.Event
	next := e.position
	err = e.DB.AsTenant(ctx, e.tenantID, func(tx pgx.Tx) error {
		ids, position, rest, err := watch.Step(ctx, e.DB.Queries, tx, e.Reader.LogID(), e.tenantID, e.position)
		if err != nil {
			return err
		}
		next, more = position, rest
		events, err = e.describe(ctx, tx, ids)
		return err
	})
	if errors.Is(err, watch.ErrFuture) {
		return false, false, invalidResumeToken()
	}
	if err != nil {
		return false, false, err
	}
	for i, event := range events {
		if i == len(events)-1 {
			e.position = next
		}
		if err := e.send(&kapselv1.WatchEventsResponse{Update: &kapselv1.WatchEventsResponse_Event{Event: event}}); err != nil {
			return false, false, err
		}
	}
	e.position = next
	return more, len(events) > 0, nil
}

// describe reads events, and leaves out those whose state is what it was, and those that the filter does not take.
func (e *eventStream) describe(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) ([]*kapselv1.Event, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := e.DB.EventsByID(ctx, tx, e.tenantID, ids)
	if err != nil {
		return nil, err
	}
	fates, err := e.fates(ctx, tx, e.tenantID, ids)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rows, func(a, b store.EventsByIDRow) int { return strings.Compare(string(a.EventID[:]), string(b.EventID[:])) })
	var events []*kapselv1.Event
	for _, row := range rows {
		event := describeEvent(store.ListEventsRow(row), fates)
		if e.news(event) && eventMatches(e.filter, event) {
			events = append(events, event)
		}
	}
	return events, nil
}

// news says whether the state of an event is another one than this stream saw last, and remembers it.
func (e *eventStream) news(event *kapselv1.Event) bool {
	last, known := e.told[event.Id]
	if known && last == event.State {
		return false
	}
	if !known {
		if len(e.order) == toldStates {
			delete(e.told, e.order[0])
			e.order = e.order[1:]
		}
		e.order = append(e.order, event.Id)
	}
	e.told[event.Id] = event.State
	return true
}

func (e *eventStream) heartbeat() error {
	return e.send(&kapselv1.WatchEventsResponse{
		Update: &kapselv1.WatchEventsResponse_Heartbeat{Heartbeat: &kapselv1.Heartbeat{Time: timestamppb.Now()}},
	})
}

func (e *eventStream) send(message *kapselv1.WatchEventsResponse) error {
	message.ResumeToken = base64.RawURLEncoding.EncodeToString(append(e.position.Encode(), e.tag[:]...))
	e.lasting.extend()
	return e.stream.Send(message)
}

func (e *eventStream) parseToken(token string) (watch.Position, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) < filterTagBytes {
		return watch.Position{}, invalidResumeToken()
	}
	body, tag := raw[:len(raw)-filterTagBytes], raw[len(raw)-filterTagBytes:]
	position, err := watch.Decode(body)
	if err != nil || subtle.ConstantTimeCompare(tag, e.tag[:]) != 1 || time.Since(position.At()) > resumeAge {
		return watch.Position{}, invalidResumeToken()
	}
	return position, nil
}

func invalidResumeToken() *refusal {
	return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_TOKEN, "resume_token",
		"resume_token is not one that this stream gave out within the last hour with the same filter: start over without it, and list what came meanwhile")
}

// eventMatches holds an event against a filter as ListEvents does in SQL.
func eventMatches(filter *kapselv1.EventFilter, event *kapselv1.Event) bool {
	if filter == nil {
		return true
	}
	if len(filter.EndpointIds) > 0 && !slices.Contains(filter.EndpointIds, event.EndpointId) {
		return false
	}
	if len(filter.States) > 0 && !slices.Contains(filter.States, event.State) {
		return false
	}
	if len(filter.EventTypes) > 0 && !slices.ContainsFunc(filter.EventTypes, func(wanted string) bool {
		prefix, open := strings.CutSuffix(wanted, "*")
		return wanted == event.EventType || open && strings.HasPrefix(event.EventType, prefix)
	}) {
		return false
	}
	return filter.IdText == "" || strings.HasPrefix(event.DeduplicationKey, filter.IdText) ||
		strings.HasPrefix(filter.IdText, string(id.Event)+"_") && strings.HasPrefix(event.Id, filter.IdText)
}
