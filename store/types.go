package store

import (
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"
)

// registerTypes makes pgx encode ids as their 16 bytes: one id by way of pgxuuid instead of through its text, and an array
// of them without reflection. Every hot statement carries a dozen such arrays.
func registerTypes(types *pgtype.Map) {
	pgxuuid.Register(types)
	types.TryWrapEncodePlanFuncs = append([]pgtype.TryWrapEncodePlanFunc{wrapUUIDs}, types.TryWrapEncodePlanFuncs...)
}

func wrapUUIDs(value any) (pgtype.WrappedEncodePlanNextSetter, any, bool) {
	ids, ok := value.([]uuid.UUID)
	if !ok {
		return nil, nil, false
	}
	return &uuidsPlan{}, pgtype.FlatArray[uuid.UUID](ids), true
}

// uuidsPlan encodes a []uuid.UUID as the flat array that it is.
type uuidsPlan struct{ next pgtype.EncodePlan }

func (p *uuidsPlan) SetNext(next pgtype.EncodePlan) { p.next = next }

func (p *uuidsPlan) Encode(value any, buf []byte) ([]byte, error) {
	return p.next.Encode(pgtype.FlatArray[uuid.UUID](value.([]uuid.UUID)), buf)
}
