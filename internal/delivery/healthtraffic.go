package delivery

import (
	"encoding/binary"
	"math/bits"
	"time"
)

const (
	// Durations are counted in classes that are an eighth of an octave wide, from durationUnit up to more than a minute: no
	// attempt takes longer.
	durationUnit    = 64 * time.Microsecond
	durationOctaves = 20
	durationClasses = 1 + durationOctaves*8
)

// Durations counts attempts by how long they took.
type Durations [durationClasses]uint32

func (d *Durations) add(duration time.Duration) {
	class := 0
	if units := uint64(max(0, duration) / (durationUnit / 8)); units >= 8 {
		octave := bits.Len64(units) - 4 // 8 to 15 are octave 0
		class = min(1+octave*8+int(units>>octave)-8, durationClasses-1)
	}
	d[class]++
}

// upperBound is what every duration of a class stays below, except in the last one.
func upperBound(class int) time.Duration {
	if class == 0 {
		return durationUnit
	}
	octave, eighth := (class-1)/8, (class-1)%8
	return durationUnit / 8 * time.Duration(9+eighth) << octave
}

// Below is the duration that the given share of the attempts stayed below, to an eighth; zero when there are none.
func (d *Durations) Below(share float64) time.Duration {
	var total uint64
	for _, n := range d {
		total += uint64(n)
	}
	var seen uint64
	for class, n := range d {
		if seen += uint64(n); n > 0 && float64(seen) >= share*float64(total) {
			return upperBound(class)
		}
	}
	return 0
}

// Merge adds what append wrote. Numbers that are missing at its end are zero.
func (d *Durations) Merge(encoded []byte) {
	for class := range d {
		n, length := binary.Uvarint(encoded)
		if length <= 0 {
			return
		}
		d[class] += uint32(n)
		encoded = encoded[length:]
	}
}

// append encodes the counts as varints, without the zeros at their end.
func (d *Durations) append(encoded []byte) []byte {
	last := durationClasses
	for last > 0 && d[last-1] == 0 {
		last--
	}
	for _, n := range d[:last] {
		encoded = binary.AppendUvarint(encoded, uint64(n))
	}
	return encoded
}

// traffic is what this node sent to a destination in a minute.
type traffic struct {
	minute            int64 // since 1970
	succeeded, failed int64
	durations         Durations
	dirty             bool // not written as it is
}

func (t *traffic) add(succeeded bool, duration time.Duration) {
	if succeeded {
		t.succeeded++
	} else {
		t.failed++
	}
	t.durations.add(duration)
	t.dirty = true
}
