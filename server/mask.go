package server

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// applyMask gives the fields of to that mask names (AIP-134) their values in from; one that from leaves out is cleared, and
// so goes back to its default. A path may lead into a message: "filter.expression". Which fields may be named at all is a
// rule of the contract, checked before.
func applyMask(mask *fieldmaskpb.FieldMask, from, to proto.Message) error {
	if len(mask.GetPaths()) == 0 {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "update_mask", "update_mask names no field: name those to change")
	}
	if !mask.IsValid(to) {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "update_mask",
			"update_mask names a field that is not there: a path such as filter.expression leads through messages only")
	}
	for _, path := range mask.GetPaths() {
		copyField(strings.Split(path, "."), from.ProtoReflect(), to.ProtoReflect())
	}
	return nil
}

func copyField(path []string, from, to protoreflect.Message) {
	field := to.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	switch {
	case len(path) > 1:
		if from.Has(field) || to.Has(field) {
			copyField(path[1:], from.Get(field).Message(), to.Mutable(field).Message())
		}
	case from.Has(field):
		to.Set(field, from.Get(field))
	default:
		to.Clear(field)
	}
}

// checkEtag refuses a change that was made from another state of the resource than the present one. No etag: any state.
func checkEtag(given, present string) error {
	if given == "" || given == present {
		return nil
	}
	return refuse(kapselv1.ErrorReason_ERROR_REASON_ETAG_MISMATCH, "it was changed since it was read: read it again, apply the change, and send it with the new etag")
}
