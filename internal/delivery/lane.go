package delivery

import (
	"sync"
	"sync/atomic"
)

// lane sends the jobs of one destination in order, at most MaxInFlight at once. So a slow or dead destination fills its
// own lane and nobody else's.
type lane struct {
	dispatcher *Dispatcher
	held       atomic.Int64 // reserved, waiting, in flight, and not recorded yet

	mu       sync.Mutex
	waiting  []Job
	inFlight int
}

// push queues a job, and starts a worker for it while fewer than MaxInFlight are at work.
func (l *lane) push(job Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inFlight < job.Destination.MaxInFlight {
		l.inFlight++
		l.dispatcher.busy.Add(1)
		go l.work(job)
		return
	}
	l.waiting = append(l.waiting, job)
}

// work sends job after job until none waits. Jobs that have waited too long for their lease go back to the queue.
func (l *lane) work(job Job) {
	defer l.dispatcher.busy.Done()
	if l.dispatcher.canSend(job) {
		l.dispatcher.deliver(job)
	} else {
		l.dispatcher.giveBack([]Job{job})
	}
	for {
		job, tooLate, more := l.next()
		l.dispatcher.giveBack(tooLate)
		if !more {
			return
		}
		l.dispatcher.deliver(job)
	}
}

// next takes the first job that can be sent, and those before it that cannot. Without one it ends the worker.
func (l *lane) next() (job Job, tooLate []Job, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) > 0 {
		job = l.waiting[0]
		l.waiting[0] = Job{}
		l.waiting = l.waiting[1:]
		if l.dispatcher.canSend(job) {
			return job, tooLate, true
		}
		tooLate = append(tooLate, job)
	}
	l.waiting = nil
	l.inFlight--
	return Job{}, tooLate, false
}

// drain takes out what waits.
func (l *lane) drain() []Job {
	l.mu.Lock()
	defer l.mu.Unlock()
	jobs := l.waiting
	l.waiting = nil
	return jobs
}
