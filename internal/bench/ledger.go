package bench

import (
	"crypto/rand"
	"encoding/binary"
	"sync/atomic"
	"time"
)

const (
	// chunkRecords is the ledger's unit of growth: 1.5 MiB of records.
	chunkRecords = 1 << 16
	maxChunks    = 1 << 12
	// maxWebhooks bounds one run: over seven hours at 10,000 a second.
	maxWebhooks = chunkRecords * maxChunks
)

// record is one webhook's fate. Times are nanoseconds since the ledger's start and
// never 0; 0 means that it has not happened.
type record struct {
	sentNs     atomic.Int64 // when it was due to be sent
	ackedNs    atomic.Int64 // when its 202 was read
	receivedNs atomic.Int64 // when the sink first had its whole body
}

type chunk [chunkRecords]record

// ledger follows every webhook of one run. Ids are dense from 0, so it is an array
// that grows by chunks; generator and sink write to it without locks.
type ledger struct {
	// run tells this run's webhooks from those of any other on the same endpoint.
	run   uint64
	start time.Time

	next     atomic.Uint64 // the next id to give out
	receipts atomic.Int64  // requests at the sink that carried an id of this run
	repeats  atomic.Int64  // those of them whose id had been received before
	chunks   [maxChunks]atomic.Pointer[chunk]
}

func newLedger() *ledger {
	var run [8]byte
	rand.Read(run[:]) // never fails: crypto/rand ends the process instead
	return &ledger{run: binary.BigEndian.Uint64(run[:]), start: time.Now()}
}

// now is the time on the ledger's clock, at least 1.
func (l *ledger) now() int64 {
	return max(int64(time.Since(l.start)), 1)
}

// issue gives out the next id, or false when the ledger is full.
func (l *ledger) issue() (uint64, bool) {
	id := l.next.Add(1) - 1
	return id, id < maxWebhooks
}

// issued is the number of ids given out.
func (l *ledger) issued() uint64 {
	return min(l.next.Load(), maxWebhooks)
}

// at returns an issued id's record, and makes its chunk when it is the first there.
func (l *ledger) at(id uint64) *record {
	slot := &l.chunks[id/chunkRecords]
	c := slot.Load()
	if c == nil {
		slot.CompareAndSwap(nil, new(chunk))
		c = slot.Load()
	}
	return &c[id%chunkRecords]
}

func (l *ledger) sent(id uint64, dueNs int64)  { l.at(id).sentNs.Store(max(dueNs, 1)) }
func (l *ledger) acked(id uint64, nowNs int64) { l.at(id).ackedNs.Store(nowNs) }

// received counts a request at the sink, and reports false for an id that this run
// never gave out.
func (l *ledger) received(id uint64) bool {
	if id >= l.issued() {
		return false
	}
	if !l.at(id).receivedNs.CompareAndSwap(0, l.now()) {
		l.repeats.Add(1)
	}
	l.receipts.Add(1)
	return true
}

// undelivered returns the first id at or after from that was acked but not received,
// or the number of issued ids when there is none. It is meaningful once sending has
// ended; passing the last answer back in makes repeated calls cost one scan in all.
func (l *ledger) undelivered(from uint64) uint64 {
	end := l.issued()
	for id := from; id < end; id++ {
		if r := l.at(id); r.ackedNs.Load() != 0 && r.receivedNs.Load() == 0 {
			return id
		}
	}
	return end
}
