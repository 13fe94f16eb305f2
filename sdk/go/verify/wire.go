package verify

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var errSpelling = errors.New("the leaf is not spelled as protobuf spells it")

// checkWire refuses a leaf that another protobuf library could read otherwise than this one: with a field that is not of the
// schema or not of its wire type, which some pass over and some decode; with a number that has more bytes than it needs, or
// with a message whose fields do not end where it ends. So a leaf says the same to every verifier.
func checkWire(d protoreflect.MessageDescriptor, data []byte) error {
	for len(data) > 0 {
		tag, n := shortVarint(data)
		if n < 0 || tag > math.MaxUint32 {
			return errSpelling
		}
		data = data[n:]
		field, kind := d.Fields().ByNumber(protowire.Number(tag>>3)), protowire.Type(tag&7)
		if field == nil {
			return fmt.Errorf("the leaf has a field in %s that this version does not know", d.FullName())
		}
		packed := field.IsList() && kind == protowire.BytesType
		if kind != wireType(field) && !packed {
			return fmt.Errorf("the leaf has its field %s in a form that is not the field's", field.FullName())
		}
		value, n := shortVarint(data)
		if n < 0 {
			return errSpelling
		}
		data = data[n:]
		if kind == protowire.VarintType {
			continue
		}
		if value > uint64(len(data)) {
			return errSpelling
		}
		if err := checkInside(field, data[:value]); err != nil {
			return err
		}
		data = data[value:]
	}
	return nil
}

// checkInside checks what has a length.
func checkInside(field protoreflect.FieldDescriptor, data []byte) error {
	if field.Message() != nil {
		return checkWire(field.Message(), data)
	}
	if field.IsList() {
		for len(data) > 0 {
			_, n := shortVarint(data)
			if n < 0 {
				return errSpelling
			}
			data = data[n:]
		}
	}
	return nil
}

// wireType is that of a field's values. A leaf has only these two, and its only list is one of numbers.
func wireType(field protoreflect.FieldDescriptor) protowire.Type {
	switch field.Kind() {
	case protoreflect.BytesKind, protoreflect.StringKind, protoreflect.MessageKind:
		return protowire.BytesType
	default:
		return protowire.VarintType
	}
}

// shortVarint reads a number in its shortest form; n is negative if it is not one.
func shortVarint(data []byte) (value uint64, n int) {
	value, n = protowire.ConsumeVarint(data)
	if n >= 0 && n != protowire.SizeVarint(value) {
		return 0, -1
	}
	return value, n
}
