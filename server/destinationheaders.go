package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/store"
)

// storeHeaders seals the values of a destination's headers. An empty one keeps the value that the header of that name has.
// column is what the column headers was until now, nil: there was none.
func (s *destinationService) storeHeaders(ctx context.Context, tx pgx.Tx, row store.Destination, wanted []*kapselv1.Header, column []byte) error {
	var present []route.StaticHeader
	if column != nil {
		var err error
		if present, err = route.ReadHeaders(column); err != nil {
			return err
		}
	}
	switch {
	case keepsAll(present, wanted):
		return nil
	case len(wanted) == 0:
		return s.DB.RemoveDestinationCredential(ctx, tx, row.TenantID, row.DestinationID, route.HeadersKind)
	}
	after := make([]route.StaticHeader, len(wanted))
	for i, h := range wanted {
		after[i] = route.StaticHeader{Name: h.Name, Value: h.Value}
	}
	if keepsAny(present, wanted) {
		opened, err := s.openHeaders(ctx, tx, row, column)
		if err != nil {
			return err
		}
		fillIn(after, opened)
	}
	text, err := json.Marshal(after)
	if err != nil {
		return err
	}
	return s.putCredential(ctx, tx, row.TenantID, row.DestinationID, route.HeadersKind, string(text))
}

// keepsAll reports whether nothing is to be done: the same names, no value given, and none to be sealed still.
func keepsAll(present []route.StaticHeader, wanted []*kapselv1.Header) bool {
	if len(present) != len(wanted) {
		return false
	}
	for i, h := range wanted {
		if h.Value != "" || h.Name != present[i].Name || !present[i].Sealed {
			return false
		}
	}
	return true
}

// keepsAny reports whether a value is left out that there may be.
func keepsAny(present []route.StaticHeader, wanted []*kapselv1.Header) bool {
	for _, h := range wanted {
		for _, p := range present {
			if h.Value == "" && strings.EqualFold(h.Name, p.Name) {
				return true
			}
		}
	}
	return false
}

// fillIn gives headers without a value the one that the header of their name has in present: the first of a name that of the first.
func fillIn(headers, present []route.StaticHeader) {
	values := make(map[string][]string, len(present)) // by lower-case name
	for _, h := range present {
		name := strings.ToLower(h.Name)
		values[name] = append(values[name], h.Value)
	}
	for i, h := range headers {
		name := strings.ToLower(h.Name)
		if len(values[name]) == 0 {
			continue
		}
		if h.Value == "" {
			headers[i].Value = values[name][0]
		}
		values[name] = values[name][1:]
	}
}

// openHeaders is what a destination's headers are until now, with their values.
func (s *destinationService) openHeaders(ctx context.Context, tx pgx.Tx, row store.Destination, column []byte) ([]route.StaticHeader, error) {
	var opened *secret.Secret
	sealed, err := s.DB.DestinationCredential(ctx, tx, row.TenantID, row.DestinationID, route.HeadersKind)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return nil, fmt.Errorf("read headers: %w", err)
	default:
		value, err := s.Keyring.Unseal(sealed.Ciphertext, secret.AssociatedData(row.TenantID, sealed.CredentialID, route.CredentialPurpose(route.HeadersKind)))
		if err == nil {
			opened = &value
		}
	}
	headers, err := route.OpenHeaders(column, opened)
	if err != nil {
		return nil, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "destination.headers",
			"the present values cannot be decrypted: give all values anew")
	}
	return headers, nil
}
