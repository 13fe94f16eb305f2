package main

import (
	"fmt"
	"slices"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fieldRules are the rules of a field in words.
func fieldRules(field protoreflect.FieldDescriptor) ([]string, error) {
	rules, _ := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
	words, err := describe(field, rules)
	if slices.Contains(behaviour(field), "required") {
		words = slices.DeleteFunc(words, func(word string) bool { return word == "required" })
	}
	return words, err
}

func describe(field protoreflect.FieldDescriptor, rules *validate.FieldRules) (words []string, err error) {
	if rules == nil {
		return nil, nil
	}
	if rules.GetRequired() {
		words = append(words, "required")
	}
	for _, rule := range rules.GetCel() {
		words = append(words, escape(rule.GetMessage()))
	}
	var more []string
	rules.ProtoReflect().Range(func(kind protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch name := string(kind.Name()); name {
		case "required", "cel", "ignore":
		case "repeated":
			more, err = repeated(field, rules.GetRepeated())
		default:
			if kind.Message() == nil || kind.ContainingOneof() == nil {
				err = fmt.Errorf("rule %s has no words", name)
			} else {
				more, err = ofType(field, value.Message())
			}
		}
		words = append(words, more...)
		more = nil
		return err == nil
	})
	if rules.GetIgnore() == validate.Ignore_IGNORE_IF_ZERO_VALUE && len(words) > 0 {
		words[len(words)-1] += ", or empty"
	}
	return words, err
}

func repeated(field protoreflect.FieldDescriptor, rules *validate.RepeatedRules) (words []string, err error) {
	if rules.MinItems != nil {
		words = append(words, fmt.Sprintf("at least %d", rules.GetMinItems()))
	}
	if rules.MaxItems != nil {
		words = append(words, fmt.Sprintf("at most %d", rules.GetMaxItems()))
	}
	if rules.GetUnique() {
		words = append(words, "all different")
	}
	each, err := describe(field, rules.GetItems())
	if len(each) > 0 {
		words = append(words, "each: "+strings.Join(each, ", "))
	}
	return words, err
}

// bounds of numbers, times and lengths, in the order in which they are told.
var bounds = []struct{ rule, words string }{
	{"const", "exactly %s"},
	{"len", "%s bytes or characters"},
	{"min_len", "at least %s characters"},
	{"max_len", "at most %s characters"},
	{"min_bytes", "at least %s bytes"},
	{"max_bytes", "at most %s bytes"},
	{"gt", "over %s"},
	{"gte", "%s or more"},
	{"lt", "under %s"},
	{"lte", "at most %s"},
	{"gt_now", "in the future"},
	{"pattern", "matches %s"},
	{"contains", "contains %s"},
	{"uri", "a URI"},
	{"finite", "finite"},
	{"defined_only", "one of the names"},
	{"in", "of %s"},
	{"not_in", "not %s"},
}

// ofType describes StringRules, Int32Rules and so on.
func ofType(field protoreflect.FieldDescriptor, rules protoreflect.Message) (words []string, err error) {
	said := 0
	for _, bound := range bounds {
		rule := rules.Descriptor().Fields().ByName(protoreflect.Name(bound.rule))
		if rule == nil || !rules.Has(rule) {
			continue
		}
		said++
		if word := bound.words; !strings.Contains(word, "%s") {
			words = append(words, word)
		} else {
			value, err := valueOf(field, rule, rules.Get(rule))
			if err != nil {
				return nil, err
			}
			if field.Kind() == protoreflect.BytesKind {
				word = strings.NewReplacer("bytes or characters", "bytes", "characters", "bytes").Replace(word)
			}
			words = append(words, fmt.Sprintf(word, value))
		}
	}
	rules.Range(func(rule protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		said--
		return true
	})
	if said != 0 {
		return nil, fmt.Errorf("a rule of %v has no words", rules.Interface())
	}
	return words, nil
}

// valueOf spells what a rule compares with.
func valueOf(field, rule protoreflect.FieldDescriptor, value protoreflect.Value) (string, error) {
	if rule.IsList() {
		var items []string
		for i := range value.List().Len() {
			item := value.List().Get(i)
			text := code(item.String())
			if field.Enum() != nil {
				named := field.Enum().Values().ByNumber(protoreflect.EnumNumber(item.Int()))
				if named == nil {
					return "", fmt.Errorf("%s is no value of %s", text, field.Enum().FullName())
				}
				text = code(string(named.Name()))
			}
			items = append(items, text)
		}
		return strings.Join(items, ", "), nil
	}
	if rule.Message() != nil {
		switch at := value.Message().Interface().(type) {
		case *durationpb.Duration:
			return strings.TrimSuffix(at.AsDuration().String(), "0m0s"), nil
		case *timestamppb.Timestamp:
			return at.AsTime().Format("2006-01-02"), nil
		}
		return "", fmt.Errorf("a value of %s has no words", rule.Message().FullName())
	}
	if rule.Kind() == protoreflect.StringKind {
		return code(value.String()), nil
	}
	return value.String(), nil
}
