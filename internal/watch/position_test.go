package watch

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func snapshots() *rapid.Generator[Snapshot] {
	return rapid.Custom(func(t *rapid.T) (s Snapshot) {
		s.Xmin = rapid.Uint64Range(3, 1<<40).Draw(t, "xmin")
		s.Xmax = s.Xmin
		for _, gap := range rapid.SliceOfN(rapid.Uint64Range(1, 5), 0, 300).Draw(t, "gaps") {
			if len(s.Running) == 0 {
				s.Running = append(s.Running, s.Xmin)
			} else {
				s.Running = append(s.Running, s.Xmax-1+gap)
			}
			s.Xmax = s.Running[len(s.Running)-1] + 1
		}
		return s
	})
}

func TestSnapshotSeesWhatHasEnded(t *testing.T) {
	s, err := ParseSnapshot("10:20:10,14,15")
	if err != nil {
		t.Fatal(err)
	}
	for xid, want := range map[uint64]bool{9: true, 10: false, 11: true, 14: false, 15: false, 19: true, 20: false, 21: false} {
		if s.Sees(xid) != want {
			t.Errorf("transaction %d: visible %v", xid, !want)
		}
	}
	for _, text := range []string{"", "1:2", "a:2:", "1:b:", "1:2:c", "1:2:3:4"} {
		if _, err := ParseSnapshot(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestTransactionIDsAreWidened(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xmax := rapid.Uint64Range(1<<32, 1<<50).Draw(t, "xmax")
		xid := xmax - rapid.Uint64Range(0, 1<<30).Draw(t, "age")
		if got := (Snapshot{Xmin: xid, Xmax: xmax}).widen(uint32(xid)); got != xid {
			t.Fatalf("%d of %d became %d", xid, xmax, got)
		}
	})
}

// What a token leaves out may be told again, never left out of what is told.
func TestShortenedSnapshotsSeeNothingMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := snapshots().Draw(t, "snapshot")
		short := s.shortened(maxRunning)
		if len(short.Running) > maxRunning {
			t.Fatalf("%d transactions are left", len(short.Running))
		}
		for xid := s.Xmin; xid <= s.Xmax; xid++ {
			if short.Sees(xid) && !s.Sees(xid) {
				t.Fatalf("%v sees %d, %v does not", short, xid, s)
			}
		}
	})
}

func TestPositionsAreEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Position{
			snapshot: snapshots().Draw(t, "snapshot").shortened(maxRunning),
			at:       time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "at")), leaf: rapid.Int64Range(0, 1<<60).Draw(t, "leaf"),
		}
		if rapid.Bool().Draw(t, "partly") {
			next := snapshots().Draw(t, "next").shortened(maxRunning)
			p.next, p.nextAt, p.after = &next, p.at.Add(time.Second), uuid.New()
		}
		encoded := p.Encode()
		decoded, err := Decode(encoded)
		if err != nil || !reflect.DeepEqual(p, decoded) {
			t.Fatalf("%+v became %+v: %v", p, decoded, err)
		}
		if len(encoded) > 700 { // 1024 characters of base64, less what the server adds
			t.Fatalf("%d bytes", len(encoded))
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(Position{snapshot: Snapshot{Xmin: 5, Xmax: 9, Running: []uint64{5, 7}}, at: time.UnixMilli(1), leaf: 3}.Encode())
	f.Add(bytes.Repeat([]byte{0xff}, 700))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := Decode(b); err == nil && p.leaf < 0 {
			t.Errorf("%x is before the first leaf", b)
		}
	})
}
