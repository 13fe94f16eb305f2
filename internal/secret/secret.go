package secret

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret holds bytes that print, log and marshal as "[redacted]". The zero Secret is empty.
//
// The bytes stand behind a function, because package fmt reaches the unexported fields of an
// enclosing struct by reflection and would print a slice there, methods or not.
type Secret struct {
	reveal func() []byte
}

// New copies b, so that the caller may clear its own.
func New(b []byte) Secret {
	b = bytes.Clone(b)
	return Secret{reveal: func() []byte { return b }}
}

// Reveal returns the bytes, which must not be changed. Pass them on to what needs them, never to
// a log or an error.
func (s Secret) Reveal() []byte {
	if s.reveal == nil {
		return nil
	}
	return s.reveal()
}

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }

// Format makes every verb of package fmt print the same.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// Value refuses to be a query parameter: a Secret goes into the database sealed, and must not
// be stored as the word "[redacted]" by mistake either.
func (Secret) Value() (driver.Value, error) {
	return nil, errors.New("a secret cannot be stored before it is sealed")
}
