// Package proto_test holds the rules that the contract keeps and that no linter checks: every field that a caller fills
// in is bounded, reads are marked as such, and the validation rules themselves compile.
package proto_test

import (
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	_ "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	_ "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// contractFiles returns the files of package kapsel.v1.
func contractFiles(t *testing.T) []protoreflect.FileDescriptor {
	t.Helper()
	var files []protoreflect.FileDescriptor
	protoregistry.GlobalFiles.RangeFilesByPackage("kapsel.v1", func(file protoreflect.FileDescriptor) bool {
		files = append(files, file)
		return true
	})
	if len(files) == 0 {
		t.Fatal("no file of package kapsel.v1 is registered")
	}
	return files
}

func eachMethod(t *testing.T, visit func(protoreflect.MethodDescriptor)) {
	t.Helper()
	visited := 0
	for _, file := range contractFiles(t) {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				visit(methods.Get(j))
				visited++
			}
		}
	}
	if visited == 0 {
		t.Fatal("the contract has no rpc")
	}
}

func TestValidationRulesCompile(t *testing.T) {
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range contractFiles(t) {
		messages := file.Messages()
		for i := range messages.Len() {
			checkRulesCompile(t, validator, messages.Get(i))
		}
	}
}

// checkRulesCompile validates a message with every field set, since a rule is compiled when it is first needed. That the
// values break rules is of no matter.
func checkRulesCompile(t *testing.T, validator protovalidate.Validator, message protoreflect.MessageDescriptor) {
	t.Helper()
	for _, candidate := range []proto.Message{dynamicpb.NewMessage(message), filled(message, 0)} {
		err := validator.Validate(candidate)
		if violations := new(protovalidate.ValidationError); err != nil && !asValidationError(err, &violations) {
			t.Errorf("%s: %v", message.FullName(), err)
		}
	}
	for i := range message.Messages().Len() {
		checkRulesCompile(t, validator, message.Messages().Get(i))
	}
}

func asValidationError(err error, target **protovalidate.ValidationError) bool {
	violations, ok := err.(*protovalidate.ValidationError)
	if ok {
		*target = violations
	}
	return ok
}

// filled returns a message with an element in every field, four levels deep.
func filled(descriptor protoreflect.MessageDescriptor, depth int) proto.Message {
	message := dynamicpb.NewMessage(descriptor)
	for i := range descriptor.Fields().Len() {
		field := descriptor.Fields().Get(i)
		if field.IsMap() || (field.Message() != nil && depth == 4) {
			continue
		}
		value := message.NewField(field)
		switch {
		case field.IsList() && field.Message() != nil:
			value.List().Append(protoreflect.ValueOfMessage(filled(field.Message(), depth+1).ProtoReflect()))
		case field.IsList():
			value.List().Append(field.Default())
			if field.Enum() != nil {
				value.List().Set(0, protoreflect.ValueOfEnum(1))
			}
		case field.Message() != nil:
			value = protoreflect.ValueOfMessage(filled(field.Message(), depth+1).ProtoReflect())
		}
		message.Set(field, value)
	}
	return message
}

func TestEveryFieldOfARequestIsBounded(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	eachMethod(t, func(method protoreflect.MethodDescriptor) {
		checkBounded(t, method.Input(), seen)
	})
}

// checkBounded follows message and all that a caller may put into it.
func checkBounded(t *testing.T, message protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) {
	t.Helper()
	if seen[message.FullName()] {
		return
	}
	seen[message.FullName()] = true
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if isOutputOnly(field) {
			continue
		}
		ours := field.Message() != nil && strings.HasPrefix(string(field.Message().FullName()), "kapsel.")
		if ours {
			checkBounded(t, field.Message(), seen)
		}
		switch {
		case field.Kind() == protoreflect.BoolKind && !field.IsList():
			// Both values are valid.
		case ours && !field.IsList():
			// Bounded by its own fields.
		case !hasRule(field):
			t.Errorf("%s has no validation rule", field.FullName())
		case field.IsList() && !fieldRules(field).GetRepeated().HasMaxItems():
			t.Errorf("%s has no max_items", field.FullName())
		case field.IsList() && !ours && fieldRules(field).GetRepeated().GetItems() == nil:
			t.Errorf("%s has no rule for its items", field.FullName())
		}
	}
}

func isOutputOnly(field protoreflect.FieldDescriptor) bool {
	behaviors, _ := proto.GetExtension(field.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	for _, behavior := range behaviors {
		if behavior == annotations.FieldBehavior_OUTPUT_ONLY {
			return true
		}
	}
	return false
}

func fieldRules(field protoreflect.FieldDescriptor) *validate.FieldRules {
	rules, _ := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
	return rules
}

// hasRule reports whether field has a rule about its value: that it is required or ignored when empty is none.
func hasRule(field protoreflect.FieldDescriptor) bool {
	rules := fieldRules(field)
	return rules != nil && (rules.HasType() || len(rules.GetCel()) > 0)
}

func TestReadsHaveNoSideEffects(t *testing.T) {
	reads := []string{"Get", "List", "Watch", "Export"}
	eachMethod(t, func(method protoreflect.MethodDescriptor) {
		isRead := false
		for _, prefix := range reads {
			isRead = isRead || strings.HasPrefix(string(method.Name()), prefix)
		}
		if method.FullName() == "kapsel.v1.ListenService.Listen" {
			isRead = false // its name only begins like List: it opens a session
		}
		options := method.Options().(*descriptorpb.MethodOptions)
		marked := options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
		if marked != isRead {
			t.Errorf("%s: NO_SIDE_EFFECTS is %t, want %t", method.FullName(), marked, isRead)
		}
	})
}

func TestEveryListIsPaged(t *testing.T) {
	eachMethod(t, func(method protoreflect.MethodDescriptor) {
		if !strings.HasPrefix(string(method.Name()), "List") || method.IsStreamingServer() {
			return
		}
		size := method.Input().Fields().ByName("page_size")
		if size == nil {
			t.Errorf("%s has no page_size", method.FullName())
			return
		}
		if rules := fieldRules(size).GetInt32(); rules.GetGte() != 0 || rules.GetLte() != 1000 {
			t.Errorf("%s: page_size is bounded by %d to %d, want 0 to 1000", method.FullName(), rules.GetGte(), rules.GetLte())
		}
		if method.Input().Fields().ByName("page_token") == nil || method.Output().Fields().ByName("next_page_token") == nil {
			t.Errorf("%s has no page token", method.FullName())
		}
	})
}

func TestEveryEnumBeginsUnspecified(t *testing.T) {
	checked := 0
	check := func(enums protoreflect.EnumDescriptors) {
		for i := range enums.Len() {
			zero := enums.Get(i).Values().ByNumber(0)
			if zero == nil || !strings.HasSuffix(string(zero.Name()), "_UNSPECIFIED") {
				t.Errorf("%s: its zero is %v, want …_UNSPECIFIED", enums.Get(i).FullName(), zero)
			}
			checked++
		}
	}
	for _, file := range contractFiles(t) {
		check(file.Enums())
		for i := range file.Messages().Len() {
			check(file.Messages().Get(i).Enums())
		}
	}
	if checked == 0 {
		t.Fatal("the contract has no enum")
	}
}
