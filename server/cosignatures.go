package server

import (
	"encoding/base64"
	"encoding/binary"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// Parts of a signature line (C2SP signed-note) and of an Ed25519 cosignature in it (C2SP tlog-cosignature).
const (
	keyIDBytes       = 4
	cosignedAtBytes  = 8
	cosignatureBytes = keyIDBytes + cosignedAtBytes + 64
	// maxCosignedAt is 9999-12-31T23:59:59Z, the last second that a timestamp of the API can have.
	maxCosignedAt = 253402300799
)

// cosignaturesIn reads who else has signed a note than the log itself. Lines of kinds that are not known are listed
// without a time, and so are those of a time that cannot be.
func cosignaturesIn(note, origin string) []*kapselv1.Cosignature {
	var list []*kapselv1.Cosignature
	_, signatures, _ := strings.Cut(note, "\n\n")
	for line := range strings.SplitSeq(signatures, "\n") {
		rest, found := strings.CutPrefix(line, "— ")
		name, text, complete := strings.Cut(rest, " ")
		if !found || !complete || name == origin {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(raw) < keyIDBytes {
			continue
		}
		c := &kapselv1.Cosignature{KeyName: name, KeyId: raw[:keyIDBytes]}
		if len(raw) == cosignatureBytes {
			if seconds := binary.BigEndian.Uint64(raw[keyIDBytes:]); seconds <= maxCosignedAt {
				c.SignTime = &timestamppb.Timestamp{Seconds: int64(seconds)}
			}
		}
		list = append(list, c)
	}
	return list
}
