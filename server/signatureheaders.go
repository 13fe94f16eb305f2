package server

import (
	"slices"
	"strings"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// checkSignatureHeaders refuses names for the headers of a signature that something else is sent under: one of them would
// be lost. Names have no case.
func checkSignatureHeaders(signing *kapselv1.Signing, static []*kapselv1.Header) error {
	taken := make([]string, 0, 3+len(static))
	for _, h := range static {
		taken = append(taken, strings.ToLower(h.Name))
	}
	for _, chosen := range []struct{ field, name, standard string }{
		{"id_header", signing.GetIdHeader(), "webhook-id"},
		{"timestamp_header", signing.GetTimestampHeader(), "webhook-timestamp"},
		{"signature_header", signing.GetSignatureHeader(), "webhook-signature"},
	} {
		name := strings.ToLower(chosen.name)
		if name == "" {
			name = chosen.standard
		}
		field := "destination.signing." + chosen.field
		if name == "user-agent" || reservedHeader(name) && !strings.HasPrefix(name, "webhook-") {
			return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field,
				"the header %s is set by Kapsel or HTTP itself: choose another name", chosen.name)
		}
		if slices.Contains(taken, name) {
			return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field,
				"the header %s is sent with something else already: choose another name", name)
		}
		taken = append(taken, name)
	}
	return nil
}
