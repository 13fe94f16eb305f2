// Package protocli makes command lines of messages: a flag for each field that a person would fill in, and a table, JSON or
// YAML of what a server answers. It knows protobuf, and nothing of what the messages mean.
package protocli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxFlagDepth of messages within messages; what lies deeper is given as JSON.
const maxFlagDepth = 3

// Fields are the flags of a request.
type Fields struct {
	message protoreflect.MessageDescriptor
	flags   []*fieldFlag
}

// fieldFlag is the flag of one field. It holds the values as they were given, until they are applied to a request.
type fieldFlag struct {
	name  string
	path  []protoreflect.FieldDescriptor
	usage string
	texts []string
}

// NewFields finds the flags of a request. Names in taken, and the fields in skip, get none. A field of a message within it is named
// with the message's name before its own, but for those of a resource or a filter that the request is about.
func NewFields(message protoreflect.MessageDescriptor, comments Comments, taken func(string) bool, skip ...string) *Fields {
	f := &Fields{message: message}
	f.collect(message, nil, "", comments, taken, skip)
	return f
}

func (f *Fields) collect(message protoreflect.MessageDescriptor, path []protoreflect.FieldDescriptor, prefix string, comments Comments, taken func(string) bool, skip []string) {
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if len(path) == 0 && slices.Contains(skip, string(field.Name())) || outputOnly(field) || field.IsMap() {
			continue
		}
		here := append(slices.Clone(path), field)
		name := prefix + strings.ReplaceAll(string(field.Name()), "_", "-")
		if kind := field.Message(); kind != nil && !readable(kind) {
			if field.IsList() || len(here) >= maxFlagDepth {
				continue
			}
			inner := name + "-"
			if len(path) == 0 && field.ContainingOneof() == nil {
				inner = ""
			}
			f.collect(kind, here, inner, comments, taken, skip)
			continue
		}
		if taken(name) {
			name = strings.ReplaceAll(string(here[0].Name()), "_", "-") + "-" + name
		}
		if slices.ContainsFunc(f.flags, func(other *fieldFlag) bool { return other.name == name }) {
			continue
		}
		f.flags = append(f.flags, &fieldFlag{name: name, path: here, usage: usage(field, comments)})
	}
}

func outputOnly(field protoreflect.FieldDescriptor) bool {
	behaviours, _ := proto.GetExtension(field.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return slices.Contains(behaviours, annotations.FieldBehavior_OUTPUT_ONLY)
}

func usage(field protoreflect.FieldDescriptor, comments Comments) string {
	text := comments.Text(field.FullName())
	if names := choices(field); names != nil {
		text += " One of: " + strings.Join(names, ", ") + "."
	}
	return strings.TrimSpace(text)
}

// choices are the values of an enum but for the zero one, nil for another kind of field.
func choices(field protoreflect.FieldDescriptor) (names []string) {
	if field.Enum() == nil {
		return nil
	}
	for i := 1; i < field.Enum().Values().Len(); i++ {
		names = append(names, EnumText(field.Enum().Values().Get(i)))
	}
	return names
}

// Choices are all values that the flag of a name takes, nil where they cannot be listed.
func (f *Fields) Choices(name string) []string {
	i := slices.IndexFunc(f.flags, func(flag *fieldFlag) bool { return flag.name == name })
	return choices(f.flags[i].field())
}

// Add adds the flags.
func (f *Fields) Add(flags *pflag.FlagSet) {
	for _, flag := range f.flags {
		added := flags.VarPF(flag, flag.name, "", flag.usage)
		if flag.field().Kind() == protoreflect.BoolKind && !flag.field().IsList() {
			added.NoOptDefVal = "true"
		}
	}
}

// Names are those of the flags.
func (f *Fields) Names() []string {
	names := make([]string, len(f.flags))
	for i, flag := range f.flags {
		names[i] = flag.name
	}
	return names
}

// Apply puts the values that were given into a request, and returns the paths of their fields.
func (f *Fields) Apply(request protoreflect.Message) (paths []string, err error) {
	for _, flag := range f.flags {
		if len(flag.texts) == 0 {
			continue
		}
		target := request
		var names []string
		for _, step := range flag.path[:len(flag.path)-1] {
			target = target.Mutable(step).Message()
			names = append(names, string(step.Name()))
		}
		field := flag.field()
		if field.IsList() {
			target.Clear(field)
		}
		for _, text := range flag.texts {
			value, err := ParseValue(field, text, target.NewField)
			if err != nil {
				return nil, fmt.Errorf("--%s: %w", flag.name, err)
			}
			if field.IsList() {
				target.Mutable(field).List().Append(value)
			} else {
				target.Set(field, value)
			}
		}
		paths = append(paths, strings.Join(append(names, string(field.Name())), "."))
	}
	return paths, nil
}

func (f *fieldFlag) field() protoreflect.FieldDescriptor { return f.path[len(f.path)-1] }

// String is for pflag.
func (f *fieldFlag) String() string { return strings.Join(f.texts, ",") }

// Type is for pflag: what stands in the help.
func (f *fieldFlag) Type() string {
	kind := kindText(f.field())
	if f.field().IsList() {
		return kind + ",…"
	}
	return kind
}

// Set checks a value as well as it can be without the request.
func (f *fieldFlag) Set(text string) error {
	texts := []string{text}
	if f.field().IsList() {
		texts = strings.Split(text, ",")
	} else {
		f.texts = nil
	}
	for _, text := range texts {
		if _, err := ParseValue(f.field(), text, nil); err != nil {
			return err
		}
	}
	f.texts = append(f.texts, texts...)
	return nil
}
