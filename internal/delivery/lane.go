package delivery

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/kapsel-dev/kapsel/internal/route"
)

// trimInterval is how long a worker waits for a job at least before it ends: starting one, and growing its stack, costs as
// much as a part of a send.
const trimInterval = 500 * time.Millisecond

// lane sends the jobs of one destination in order, within the node's share of MaxInFlight and RatePerSecond. So a slow or
// dead destination fills its own lane and nobody else's.
type lane struct {
	dispatcher *Dispatcher
	held       atomic.Int64 // reserved, waiting, in flight, and not recorded yet
	inFlight   atomic.Int64 // changed under mu

	mu      sync.Mutex
	limits  *route.Destination // of the job that came last: its settings are the newest
	waiting []Job
	pace    pace
	turn    *time.Timer // set while the first that waits, waits for the rate
	parked  []*worker   // without a job, the one that was busy last at the end
	spare   int         // how many were parked at least since the last trim
	trimmer *time.Timer // set while any are parked
}

// worker is a goroutine that sends. A closed channel ends it.
type worker struct{ jobs chan Job }

// push queues a job, or has it sent at once when the limits allow.
func (l *lane) push(job Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = job.Destination
	if l.dispatcher.stopped.Load() || len(l.waiting) == 0 && l.mayBegin() {
		l.begin(job) // which gives it back after a stop
		return
	}
	l.waiting = append(l.waiting, job)
	l.beginWaiting()
}

// mayBegin reports whether one more may be in flight, and takes a token of the rate for it.
func (l *lane) mayBegin() bool {
	return l.inFlight.Load() < int64(l.dispatcher.inFlightShare(l.limits)) && l.takeToken()
}

// takeToken reports whether the rate allows an attempt now. If not, the lane's timer goes on when it does: one for all that
// wait, and no worker.
func (l *lane) takeToken() bool {
	if l.limits.RatePerSecond == 0 {
		return true
	}
	wait := l.pace.take(time.Now(), l.dispatcher.interval(l.limits))
	if wait > 0 && l.turn == nil && !l.dispatcher.stopped.Load() {
		l.dispatcher.busy.Add(1)
		l.turn = time.AfterFunc(wait, l.takeTurn)
	}
	return wait == 0
}

// takeTurn goes on with what waited for the rate.
func (l *lane) takeTurn() {
	defer l.dispatcher.busy.Done()
	l.mu.Lock()
	l.turn = nil
	tooLate := append(l.dropLate(), l.dropHopeless()...)
	l.beginWaiting()
	l.mu.Unlock()
	l.dispatcher.giveBack(tooLate)
}

// begin gives a job to a worker.
func (l *lane) begin(job Job) {
	l.inFlight.Add(1)
	if n := len(l.parked); n > 0 {
		w := l.parked[n-1]
		l.parked = l.parked[:n-1]
		l.spare = min(l.spare, n-1)
		w.jobs <- job // has room for one
		return
	}
	l.dispatcher.busy.Add(1)
	go l.work(&worker{jobs: make(chan Job, 1)}, job)
}

func (l *lane) beginWaiting() {
	for len(l.waiting) > 0 && l.mayBegin() {
		l.begin(l.pop())
	}
}

func (l *lane) pop() Job {
	job := l.waiting[0]
	l.waiting[0] = Job{}
	l.waiting = l.waiting[1:]
	if len(l.waiting) == 0 {
		l.waiting = nil
	}
	return job
}

// work sends job after job until the worker is not needed any more. Jobs that have waited too long for their lease go back
// to the queue.
func (l *lane) work(w *worker, job Job) {
	defer l.dispatcher.busy.Done()
	for {
		if l.dispatcher.canSend(job) {
			l.dispatcher.deliver(job)
		} else {
			l.dispatcher.giveBack([]Job{job})
		}
		var tooLate []Job
		var more bool
		job, tooLate, more = l.next(w)
		l.dispatcher.giveBack(tooLate)
		if !more {
			if job, more = <-w.jobs; !more {
				return
			}
		}
	}
}

// next takes the first job that can be sent, and those before it that cannot. Without one it parks the worker: its next job
// comes through its channel.
func (l *lane) next(w *worker) (job Job, tooLate []Job, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tooLate = l.dropLate()
	l.inFlight.Add(-1)
	if len(l.waiting) > 0 && l.mayBegin() {
		l.inFlight.Add(1)
		return l.pop(), tooLate, true
	}
	if l.dispatcher.stopped.Load() {
		close(w.jobs)
		return Job{}, tooLate, false
	}
	l.parked = append(l.parked, w)
	if l.trimmer == nil {
		l.spare = 0
		l.trimmer = time.AfterFunc(trimInterval, l.trim)
	}
	return Job{}, tooLate, false
}

// trim ends the workers that had nothing to do since the last time.
func (l *lane) trim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endParked(l.spare)
	l.spare = len(l.parked)
	l.trimmer = nil
	if l.spare > 0 {
		l.trimmer = time.AfterFunc(trimInterval, l.trim)
	}
}

// endParked ends the n workers that are parked for the longest time.
func (l *lane) endParked(n int) {
	for _, w := range l.parked[:n] {
		close(w.jobs)
	}
	l.parked = append([]*worker(nil), l.parked[n:]...)
}

// dropLate takes out the first jobs whose leases have become too short to be sent.
func (l *lane) dropLate() (tooLate []Job) {
	for len(l.waiting) > 0 && !l.dispatcher.canSend(l.waiting[0]) {
		tooLate = append(tooLate, l.pop())
	}
	return tooLate
}

// dropHopeless takes out the last jobs whose leases will be too short when the rate comes to them: other nodes may be
// faster.
func (l *lane) dropHopeless() (tooLate []Job) {
	if l.limits.RatePerSecond == 0 {
		return nil
	}
	interval := l.dispatcher.interval(l.limits)
	for n := len(l.waiting); n > 1 && !l.dispatcher.canSendAfter(l.waiting[n-1], time.Duration(n-1)*interval); n-- {
		tooLate = append(tooLate, l.waiting[n-1])
		l.waiting[n-1] = Job{}
		l.waiting = l.waiting[:n-1]
	}
	return tooLate
}

// drain takes out what waits, and ends the workers that have nothing to do.
func (l *lane) drain() []Job {
	l.mu.Lock()
	defer l.mu.Unlock()
	jobs := l.waiting
	l.waiting = nil
	l.endParked(len(l.parked))
	l.spare = 0
	if l.turn != nil && l.turn.Stop() {
		l.turn = nil
		l.dispatcher.busy.Done()
	}
	return jobs
}
