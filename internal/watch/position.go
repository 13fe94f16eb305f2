package watch

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/uuid"
)

// maxRunning transactions are kept in a position that is encoded, of each of its snapshots: with two bytes each it stays well below
// the 1024 characters of a token.
const maxRunning = 100

// Position is up to where a stream has been told. It can only be obtained from Tip, Step or Decode.
type Position struct {
	snapshot Snapshot
	at       time.Time // of the snapshot, by the database's clock
	leaf     int64     // leaf index of the next one to look at

	// While what came between snapshot and next is gone through in several steps:
	next   *Snapshot
	nextAt time.Time
	after  uuid.UUID // the last id that was looked at
}

// At is when the position was the present.
func (p Position) At() time.Time { return p.at }

// Encode makes a text-free form of at most some 600 bytes.
func (p Position) Encode() []byte {
	b := []byte{positionVersion}
	b = appendSnapshot(b, p.snapshot.shortened(maxRunning))
	b = binary.AppendVarint(b, p.at.UnixMilli())
	b = binary.AppendUvarint(b, uint64(p.leaf))
	if p.next != nil {
		b = appendSnapshot(b, p.next.shortened(maxRunning))
		b = binary.AppendVarint(b, p.nextAt.UnixMilli())
		b = append(b, p.after[:]...)
	}
	return b
}

const positionVersion = 1

var errPosition = errors.New("not a position")

// Decode reads what Encode made. It refuses all else, but cannot tell what was forged: whoever does that misleads only himself.
func Decode(b []byte) (p Position, err error) {
	r := reader{rest: b}
	if r.byte() != positionVersion {
		return p, errPosition
	}
	p.snapshot = r.snapshot()
	p.at = time.UnixMilli(r.varint())
	p.leaf = int64(r.uvarint())
	if len(r.rest) > 0 {
		next := r.snapshot()
		p.next, p.nextAt = &next, time.UnixMilli(r.varint())
		p.after = uuid.UUID(r.bytes(len(p.after)))
	}
	if r.failed || len(r.rest) > 0 || p.leaf < 0 {
		return Position{}, errPosition
	}
	return p, nil
}

func appendSnapshot(b []byte, s Snapshot) []byte {
	b = binary.AppendUvarint(b, s.Xmin)
	b = binary.AppendUvarint(b, s.Xmax-s.Xmin)
	b = binary.AppendUvarint(b, uint64(len(s.Running)))
	last := s.Xmin
	for _, xid := range s.Running {
		b = binary.AppendUvarint(b, xid-last)
		last = xid
	}
	return b
}

// reader reads what may be anything.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) bytes(n int) []byte {
	if len(r.rest) < n {
		r.failed, r.rest = true, nil
		return make([]byte, n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte { return r.bytes(1)[0] }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) snapshot() (s Snapshot) {
	s.Xmin = r.uvarint()
	s.Xmax = s.Xmin + r.uvarint()
	count := r.uvarint()
	if count > maxRunning {
		r.failed = true
		return s
	}
	last := s.Xmin
	for range count {
		last += r.uvarint()
		s.Running = append(s.Running, last)
	}
	return s
}
