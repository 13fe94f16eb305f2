package server

import (
	"encoding/base64"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
)

// keyIDBytes begin the bytes of a signature line (C2SP signed-note).
const keyIDBytes = 4

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
		if seconds, possible := checkpoint.CosignedAt(raw); possible {
			c.SignTime = &timestamppb.Timestamp{Seconds: seconds}
		}
		list = append(list, c)
	}
	return list
}
