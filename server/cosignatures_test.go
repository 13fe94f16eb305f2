package server

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
)

// A line of a kind that is not known can have any bytes where a cosignature has its time: an answer with it is JSON all the same.
func TestCosignaturesOfImpossibleTimesHaveNone(t *testing.T) {
	for seconds, shown := range map[uint64]bool{1: true, 253402300799: true, 253402300800: false, math.MaxInt64: false, math.MaxUint64: false} {
		raw := make([]byte, 4+8+64)
		binary.BigEndian.PutUint64(raw[keyIDBytes:], seconds)
		note := fmt.Sprintf("log.example.com/1\n0\nroot\n\n— witness.example.com %s\n", base64.StdEncoding.EncodeToString(raw))
		list := cosignaturesIn(note, "log.example.com/1")
		if len(list) != 1 || (list[0].SignTime != nil) != shown {
			t.Fatalf("%d seconds: got %v", seconds, list)
		}
		if _, err := protojson.Marshal(list[0]); err != nil {
			t.Errorf("%d seconds: %v", seconds, err)
		}
	}
}
