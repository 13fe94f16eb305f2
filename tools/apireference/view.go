package main

import (
	"fmt"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/kapsel-dev/kapsel/server"
)

// fileView is a page.
type fileView struct {
	Page, Path string
	Services   []serviceView
	Messages   []messageView
	Enums      []enumView
}

type serviceView struct {
	Name, Comment string
	RPCs          []rpcView
}

type rpcView struct {
	Name, URL, Comment, Summary string
	Scope                       string
	Request, Response           string // links
	ByGET                       bool
}

// Anchor is where the heading of its name leads.
func (v serviceView) Anchor() string { return strings.ToLower(v.Name) }

// Anchor is where the heading of its name leads.
func (v rpcView) Anchor() string { return strings.ToLower(v.Name) }

type messageView struct {
	Name, Comment string
	Rules         []string
	Fields        []fieldView
}

type fieldView struct{ Name, Type, Rules, Comment string }

type enumView struct {
	Name, Comment string
	Values        []valueView
}

type valueView struct {
	Name    string
	Number  protoreflect.EnumNumber
	Comment string
}

func newFileView(file protoreflect.FileDescriptor) (view fileView, err error) {
	view = fileView{Page: pageOf(file), Path: file.Path()}
	for i := range file.Services().Len() {
		service, err := newServiceView(file.Services().Get(i))
		if err != nil {
			return view, err
		}
		view.Services = append(view.Services, service)
	}
	for i := range file.Messages().Len() {
		message := file.Messages().Get(i)
		if message.Messages().Len()+message.Enums().Len() > 0 {
			return view, fmt.Errorf("%s has types of its own, which the pages have no place for", message.FullName())
		}
		described, err := newMessageView(message)
		if err != nil {
			return view, err
		}
		view.Messages = append(view.Messages, described)
	}
	for i := range file.Enums().Len() {
		view.Enums = append(view.Enums, newEnumView(file.Enums().Get(i)))
	}
	return view, nil
}

func newServiceView(service protoreflect.ServiceDescriptor) (serviceView, error) {
	view := serviceView{Name: string(service.Name()), Comment: prose(service)}
	for i := range service.Methods().Len() {
		rpc := service.Methods().Get(i)
		name := string(service.Name()) + "/" + string(rpc.Name())
		scope, found := server.Scope(name)
		if !found {
			return view, fmt.Errorf("the server does not say which scope %s asks for", name)
		}
		options, _ := rpc.Options().(*descriptorpb.MethodOptions)
		comment := prose(rpc)
		summary, _, _ := strings.Cut(comment, "\n")
		view.RPCs = append(view.RPCs, rpcView{
			Name: string(rpc.Name()), URL: "/" + string(service.FullName()) + "/" + string(rpc.Name()), Comment: comment, Summary: firstSentence(summary), Scope: scope,
			Request: streamed(rpc.IsStreamingClient(), rpc.Input()), Response: streamed(rpc.IsStreamingServer(), rpc.Output()),
			ByGET: options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS && !rpc.IsStreamingServer(),
		})
	}
	return view, nil
}

func streamed(stream bool, message protoreflect.MessageDescriptor) string {
	if stream {
		return "a stream of " + link(message, message.ParentFile())
	}
	return link(message, message.ParentFile())
}

func newMessageView(message protoreflect.MessageDescriptor) (messageView, error) {
	view := messageView{Name: string(message.Name()), Comment: prose(message)}
	rules, _ := proto.GetExtension(message.Options(), validate.E_Message).(*validate.MessageRules)
	for _, rule := range rules.GetCel() {
		view.Rules = append(view.Rules, escape(rule.GetMessage())+".")
	}
	for i := range message.Oneofs().Len() {
		oneof := message.Oneofs().Get(i)
		if oneof.IsSynthetic() {
			continue
		}
		rules, _ := proto.GetExtension(oneof.Options(), validate.E_Oneof).(*validate.OneofRules)
		number := "At most one"
		if rules.GetRequired() {
			number = "Exactly one"
		}
		names := make([]string, oneof.Fields().Len())
		for j := range names {
			names[j] = code(string(oneof.Fields().Get(j).Name()))
		}
		view.Rules = append(view.Rules, strings.TrimSpace(number+" of "+strings.Join(names, ", ")+" is set (oneof "+code(string(oneof.Name()))+"). "+line(oneof)))
	}
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		rules, err := fieldRules(field)
		if err != nil {
			return view, fmt.Errorf("%s: %w", field.FullName(), err)
		}
		view.Fields = append(view.Fields, fieldView{
			Name: string(field.Name()), Type: typeOf(field), Rules: strings.Join(append(behaviour(field), rules...), "; "), Comment: line(field),
		})
	}
	return view, nil
}

func newEnumView(enum protoreflect.EnumDescriptor) enumView {
	view := enumView{Name: string(enum.Name()), Comment: prose(enum)}
	for i := range enum.Values().Len() {
		value := enum.Values().Get(i)
		view.Values = append(view.Values, valueView{Name: string(value.Name()), Number: value.Number(), Comment: line(value)})
	}
	return view
}

func comment(d protoreflect.Descriptor) string {
	return strings.TrimSpace(d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments)
}

// prose is a comment with its paragraphs.
func prose(d protoreflect.Descriptor) string {
	paragraphs := strings.Split(strings.ReplaceAll(comment(d), "\n \n", "\n\n"), "\n\n")
	for i, paragraph := range paragraphs {
		paragraphs[i] = escape(strings.Join(strings.Fields(paragraph), " "))
	}
	return strings.Join(paragraphs, "\n\n")
}

// line is a comment for a cell of a table.
func line(d protoreflect.Descriptor) string {
	return escape(strings.Join(strings.Fields(comment(d)), " "))
}

func firstSentence(text string) string {
	if sentence, _, more := strings.Cut(text, ". "); more {
		return sentence + "."
	}
	return text
}

// escape keeps Markdown from reading anything into a comment, also in a table.
func escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", "*", `\*`, "|", `\|`, "`", "\\`").Replace(text)
}

// code is text as it is, also in a table.
func code(text string) string {
	fence := "`"
	if strings.Contains(text, "`") {
		fence = "``"
	}
	return fence + strings.ReplaceAll(text, "|", `\|`) + fence
}

func typeOf(field protoreflect.FieldDescriptor) string {
	kind := field.Kind().String()
	switch {
	case field.Message() != nil:
		kind = link(field.Message(), field.ParentFile())
	case field.Enum() != nil:
		kind = link(field.Enum(), field.ParentFile())
	}
	switch {
	case field.IsMap():
		panic(fmt.Sprintf("%s is a map, which the pages have no words for", field.FullName()))
	case field.IsList():
		return "repeated " + kind
	case field.HasOptionalKeyword():
		return "optional " + kind
	}
	return kind
}

// link is a type's name, which leads to where it stands, seen from the page of another file. Google's own types lead nowhere.
func link(d protoreflect.Descriptor, from protoreflect.FileDescriptor) string {
	if !strings.HasPrefix(string(d.FullName()), "kapsel.") {
		return code(string(d.FullName()))
	}
	page := ""
	if d.ParentFile().Path() != from.Path() {
		page = pageOf(d.ParentFile())
	}
	return fmt.Sprintf("[%s](%s#%s)", d.Name(), page, strings.ToLower(string(d.Name())))
}

func behaviour(field protoreflect.FieldDescriptor) (words []string) {
	behaviours, _ := proto.GetExtension(field.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	for _, b := range behaviours {
		switch b {
		case annotations.FieldBehavior_OUTPUT_ONLY:
			words = append(words, "output only")
		case annotations.FieldBehavior_INPUT_ONLY:
			words = append(words, "input only")
		case annotations.FieldBehavior_IMMUTABLE:
			words = append(words, "immutable")
		case annotations.FieldBehavior_REQUIRED:
			words = append(words, "required")
		default:
			panic(fmt.Sprintf("%s: behaviour %s has no words", field.FullName(), b))
		}
	}
	return words
}
