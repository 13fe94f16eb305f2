package tenant

import (
	"errors"
	"slices"

	"github.com/google/uuid"
)

// Scope is what an API key may do, as stored.
type Scope string

// The scopes. None includes another, but for Admin, which includes Ingest, Read and Manage.
const (
	Ingest   Scope = "ingest"
	Read     Scope = "read"
	Manage   Scope = "manage"
	Admin    Scope = "admin"
	Operator Scope = "operator"
)

var (
	// ErrMissing: no API key was given.
	ErrMissing = errors.New("no API key")
	// ErrMalformed: this cannot be an API key; its form or checksum is wrong.
	ErrMalformed = errors.New("malformed API key")
	// ErrInvalid: the API key is unknown.
	ErrInvalid = errors.New("unknown API key")
	// ErrExpired: the API key has expired, or was revoked.
	ErrExpired = errors.New("expired API key")
	// ErrSuspended: the tenant is suspended, and may only read.
	ErrSuspended = errors.New("tenant is suspended")
	// ErrScope: the API key lacks the scope.
	ErrScope = errors.New("API key lacks the scope")
)

// IsRefusal reports whether an error of Authenticate says that the key does not open, now or ever.
func IsRefusal(err error) bool {
	return errors.Is(err, ErrMissing) || errors.Is(err, ErrMalformed) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrExpired)
}

// OperatorID is the tenant that the operator's keys stand under. It has nothing else. The schema knows it too
// (kapsel_operator_tenant).
var OperatorID = uuid.MustParse("00000000-0000-7000-8000-000000000000")

// Principal is who calls.
type Principal struct {
	TenantID, KeyID uuid.UUID
	Scopes          []Scope
	// Suspended says that the tenant may read, and nothing else.
	Suspended bool
}

// Authorize returns nil if the principal may do what asks for scope, else ErrScope or ErrSuspended.
func (p Principal) Authorize(scope Scope) error {
	ofAdmin := scope == Ingest || scope == Read || scope == Manage
	if !slices.Contains(p.Scopes, scope) && !(ofAdmin && slices.Contains(p.Scopes, Admin)) {
		return ErrScope
	}
	if p.Suspended && scope != Read {
		return ErrSuspended
	}
	return nil
}

// IsOperator reports whether a key of the operator is used. It stands for no tenant.
func (p Principal) IsOperator() bool { return slices.Contains(p.Scopes, Operator) }
