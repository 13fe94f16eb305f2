// Package id makes and spells Kapsel's ids: UUIDv7 (RFC 9562) inside, TypeID text such as evt_01h455vb4pex5vsknk084sn02q
// at every edge. A Kind is the prefix; the time in an id bounds where its rows can be.
package id

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.jetify.com/typeid/base32"
)

// Kind is the prefix of a TypeID.
type Kind string

// The kinds of resources.
const (
	Tenant      Kind = "tnt"
	APIKey      Kind = "key"
	Endpoint    Kind = "ep"
	Destination Kind = "dst"
	Secret      Kind = "sec"
	Event       Kind = "evt"
	Delivery    Kind = "dlv"
	Attempt     Kind = "att"
	Replay      Kind = "rpl"
	Node        Kind = "nod"
	AuditEntry  Kind = "aud"
	Session     Kind = "lsn"
)

const suffixLength = 26

// New returns a new UUIDv7.
func New() uuid.UUID {
	return uuid.Must(uuid.NewV7()) // fails only when the system has no randomness
}

// Text spells u as an id of kind k.
func (k Kind) Text(u uuid.UUID) string {
	return string(k) + "_" + base32.Encode(u)
}

// Parse reads the text of an id of kind k.
func (k Kind) Parse(text string) (uuid.UUID, error) {
	prefix, suffix, found := strings.Cut(text, "_")
	if !found || prefix != string(k) || len(suffix) != suffixLength || suffix[0] > '7' {
		return uuid.Nil, fmt.Errorf("not an id of the form %s_ and %d characters", k, suffixLength)
	}
	bytes, err := base32.Decode(suffix)
	if err != nil {
		return uuid.Nil, fmt.Errorf("id %s_…: %w", k, err)
	}
	return uuid.UUID(bytes), nil
}

// Floor is the smallest UUIDv7 of a moment.
func Floor(at time.Time) (first uuid.UUID) {
	ms := min(max(at.UnixMilli(), 0), math.MaxInt64>>16)
	for i := range 6 {
		first[i] = byte(ms >> (8 * (5 - i)))
	}
	return first
}

// Time is the moment, to the millisecond, at which u was made.
func Time(u uuid.UUID) time.Time {
	var ms int64
	for _, b := range u[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms)
}
