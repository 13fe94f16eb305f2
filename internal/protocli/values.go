package protocli

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// maxFileBytes of a value that is read from a file: more than any message may hold.
const maxFileBytes = 34 << 20

// readable reports whether values of a message have a text that people write.
func readable(message protoreflect.MessageDescriptor) bool {
	return slices.Contains([]protoreflect.FullName{"google.protobuf.Duration", "google.protobuf.Timestamp", "google.protobuf.FieldMask"}, message.FullName())
}

func kindText(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return strings.ToLower(string(field.Message().Name()))
	case protoreflect.EnumKind:
		return "name"
	case protoreflect.BytesKind:
		return "text or @file"
	}
	return field.Kind().String()
}

// ParseValue reads the value of a field, one of its elements if it is a list. Bytes are the text itself, or those of @file. A nil
// newField only checks, and opens no file.
func ParseValue(field protoreflect.FieldDescriptor, text string, newField func(protoreflect.FieldDescriptor) protoreflect.Value) (protoreflect.Value, error) {
	var none protoreflect.Value
	switch field.Kind() {
	case protoreflect.StringKind:
		if strings.ContainsRune(text, 0) {
			return none, errors.New("text must not hold the character U+0000")
		}
		return protoreflect.ValueOfString(text), nil
	case protoreflect.BytesKind:
		path, isFile := strings.CutPrefix(text, "@")
		if !isFile || newField == nil {
			return protoreflect.ValueOfBytes([]byte(text)), nil
		}
		data, err := readFile(path)
		return protoreflect.ValueOfBytes(data), err
	case protoreflect.BoolKind:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return none, fmt.Errorf("%q is neither true nor false", text)
		}
		return protoreflect.ValueOfBool(b), nil
	case protoreflect.EnumKind:
		return parseEnum(field.Enum(), text)
	case protoreflect.MessageKind:
		message, err := parseMessage(field.Message(), text)
		if err != nil {
			return none, err
		}
		return protoreflect.ValueOfMessage(message.ProtoReflect()), nil
	}
	return parseNumber(field.Kind(), text)
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1)) // a device has no size to look at
	if err == nil && len(data) > maxFileBytes {
		err = fmt.Errorf("%s is larger than %d MiB", path, maxFileBytes>>20)
	}
	return data, err
}

func parseNumber(kind protoreflect.Kind, text string) (protoreflect.Value, error) {
	bits := 64
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind, protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		bits = 32
	}
	switch kind {
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return protoreflect.Value{}, fmt.Errorf("%q is not a number", text)
		}
		if kind == protoreflect.FloatKind {
			return protoreflect.ValueOfFloat32(float32(n)), nil
		}
		return protoreflect.ValueOfFloat64(n), nil
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		n, err := strconv.ParseUint(text, 10, bits)
		if err != nil {
			return protoreflect.Value{}, fmt.Errorf("%q is not a whole number from 0 of %d bits", text, bits)
		}
		if bits == 32 {
			return protoreflect.ValueOfUint32(uint32(n)), nil
		}
		return protoreflect.ValueOfUint64(n), nil
	}
	n, err := strconv.ParseInt(text, 10, bits)
	if err != nil {
		return protoreflect.Value{}, fmt.Errorf("%q is not a whole number of %d bits", text, bits)
	}
	if bits == 32 {
		return protoreflect.ValueOfInt32(int32(n)), nil
	}
	return protoreflect.ValueOfInt64(n), nil
}

// EnumText is a value as people write it: ENDPOINT_STATE_WORKER_LOST of EndpointState is worker-lost.
func EnumText(value protoreflect.EnumValueDescriptor) string {
	var prefix strings.Builder
	for i, r := range string(value.Parent().Name()) {
		if i > 0 && r >= 'A' && r <= 'Z' {
			prefix.WriteByte('_')
		}
		prefix.WriteString(strings.ToUpper(string(r)))
	}
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(string(value.Name()), prefix.String()+"_"), "_", "-"))
}

func parseEnum(enum protoreflect.EnumDescriptor, text string) (protoreflect.Value, error) {
	var names []string
	for i := 1; i < enum.Values().Len(); i++ {
		value := enum.Values().Get(i)
		if strings.EqualFold(text, EnumText(value)) || strings.EqualFold(text, string(value.Name())) {
			return protoreflect.ValueOfEnum(value.Number()), nil
		}
		names = append(names, EnumText(value))
	}
	return protoreflect.Value{}, fmt.Errorf("there is no %q: choose of %s", text, strings.Join(names, ", "))
}

func parseMessage(kind protoreflect.MessageDescriptor, text string) (proto.Message, error) {
	switch kind.FullName() {
	case "google.protobuf.Duration":
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a duration such as 1m30s", text)
		}
		return durationpb.New(d), nil
	case "google.protobuf.Timestamp":
		if age, err := time.ParseDuration(text); err == nil && age >= 0 {
			return timestamppb.New(time.Now().Add(-age)), nil
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, fmt.Errorf("%q is neither a time such as 2006-01-02T15:04:05Z nor an age such as 24h", text)
		}
		return timestamppb.New(at), nil
	default:
		return &fieldmaskpb.FieldMask{Paths: []string{text}}, nil
	}
}
