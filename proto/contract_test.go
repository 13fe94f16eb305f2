// Package proto_test holds the rules that the contract keeps and that no linter checks: every field that a caller fills
// in is bounded, reads are marked as such, and the validation rules themselves compile.
package proto_test

import (
	"errors"
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

// A message's rules are compiled when one of its kind is first validated, so an empty one tells. That it breaks a rule
// is of no matter here.
func TestValidationRulesCompile(t *testing.T) {
	for _, file := range contractFiles(t) {
		for i := range file.Messages().Len() {
			message := dynamicpb.NewMessage(file.Messages().Get(i))
			var violations *protovalidate.ValidationError
			if err := protovalidate.Validate(message); err != nil && !errors.As(err, &violations) {
				t.Errorf("%s: %v", message.Descriptor().FullName(), err)
			}
		}
	}
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
