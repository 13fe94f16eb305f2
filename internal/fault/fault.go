// Package fault makes a running program fail on purpose, at named points of a webhook's way: before and after a commit,
// around a send, between the steps of a seal. Chaos runs switch points on through the environment; without that a point
// costs one atomic load.
//
// It is for what cannot be caused from outside, such as a death between two steps of one function. Failures of the
// network, of the database and of destinations are made from outside (internal/chaos).
package fault

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Variable names the environment variable that switches points on, for example
// "seed=7;recorder.before_commit=panic:0.01;delivery.before_send=delay:0.1:20ms".
const Variable = "KAPSEL_FAULTS"

// ErrInjected is what a point returns whose action is error.
var ErrInjected = errors.New("injected fault")

// active is the schedule of this process, nil when no point is on. It is the package's only state: a point must be
// reachable from everywhere without being passed around.
var active atomic.Pointer[Schedule]

// Point is where a failure may be injected. It returns nil unless the point is on and its action is error. Callers
// that cannot fail use Pass.
func Point(name Name) error {
	if schedule := active.Load(); schedule != nil {
		return schedule.hit(name)
	}
	return nil
}

// Pass is Point for places where an error means nothing: delays, panics and exits happen, errors don't.
func Pass(name Name) {
	if schedule := active.Load(); schedule != nil {
		_ = schedule.hit(name)
	}
}

// Enable makes a schedule this process's. Nil switches all points off.
func Enable(schedule *Schedule) { active.Store(schedule) }

// hit draws whether the point fails this time, and carries that out.
func (s *Schedule) hit(name Name) error {
	rule, on := s.rules[name]
	if !on || !rule.draw() {
		return nil
	}
	switch rule.action {
	case actionError:
		return fmt.Errorf("%s: %w", name, ErrInjected)
	case actionDelay:
		time.Sleep(rule.delay)
	case actionPanic:
		panic(fmt.Sprintf("injected fault at %s", name))
	case actionExit:
		exit()
	}
	return nil
}
