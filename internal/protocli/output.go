package protocli

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Format of output.
type Format string

// The formats.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Printer writes messages in one format.
type Printer struct {
	Out    io.Writer
	Format Format
	// Bold sets off the heads of tables, where people look at a terminal.
	Bold bool
}

// Message writes one message; as a table, a line a field.
func (p Printer) Message(m proto.Message) error {
	if p.Format != Table {
		text, err := marshal(m)
		if err != nil {
			return err
		}
		return p.structured(text)
	}
	out := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	writeFields(out, "", m.ProtoReflect())
	return out.Flush()
}

// Line writes one message of a stream: JSON on one line, a document of YAML, or a line of a table without its head.
func (p Printer) Line(m proto.Message, columns []string) error {
	if p.Format == Table {
		_, err := fmt.Fprintln(p.Out, strings.Join(cells(m.ProtoReflect(), columns), "  "))
		return err
	}
	text, err := marshal(m)
	if err != nil {
		return err
	}
	if p.Format == YAML {
		if _, err := io.WriteString(p.Out, "---\n"); err != nil {
			return err
		}
		return p.structured(text)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.Out, line.String())
	return err
}

// List writes messages as a table of columns, or as an array.
func (p Printer) List(messages []proto.Message, columns []string) error {
	if p.Format == Table {
		out := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		heads := make([]string, len(columns))
		for i, column := range columns {
			heads[i] = strings.ToUpper(strings.NewReplacer("_", " ", ".", " ").Replace(column))
		}
		head := strings.Join(heads, "\t")
		if p.Bold { // at the ends of the line, where it does not count in the width of a column
			head = "\x1b[1m" + head + "\x1b[0m"
			fmt.Fprintln(out, head)
		} else {
			fmt.Fprintln(out, head)
		}
		for _, m := range messages {
			fmt.Fprintln(out, strings.Join(cells(m.ProtoReflect(), columns), "\t"))
		}
		return out.Flush()
	}
	all := []json.RawMessage{}
	for _, m := range messages {
		text, err := marshal(m)
		if err != nil {
			return err
		}
		all = append(all, text)
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return p.structured(text)
}

func marshal(m proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{UseProtoNames: false}.Marshal(m)
}

// structured writes JSON anew: protojson's spacing differs from one build to the next on purpose.
func (p Printer) structured(text []byte) error {
	if p.Format == YAML {
		var node yaml.Node
		if err := yaml.Unmarshal(text, &node); err != nil {
			return fmt.Errorf("encode YAML: %w", err)
		}
		plain(&node)
		encoder := yaml.NewEncoder(p.Out)
		encoder.SetIndent(2)
		if err := encoder.Encode(&node); err != nil {
			return fmt.Errorf("encode YAML: %w", err)
		}
		return encoder.Close()
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, text, "", "  "); err != nil {
		return fmt.Errorf("encode JSON: %w", err)
	}
	_, err := fmt.Fprintln(p.Out, indented.String())
	return err
}

// plain gives YAML that was read as JSON the style of YAML. Keys and texts lose their quotes where that does not change them.
func plain(node *yaml.Node) {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!str" {
		node.Style = 0
	}
	for _, child := range node.Content {
		plain(child)
	}
}

// writeFields writes the fields that are set, those of messages within with their names joined by dots.
func writeFields(out io.Writer, prefix string, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if !m.Has(field) {
			continue
		}
		name := prefix + string(field.Name())
		if field.Message() != nil && !field.IsList() && !field.IsMap() && !readable(field.Message()) {
			writeFields(out, name+".", m.Get(field).Message())
			continue
		}
		fmt.Fprintf(out, "%s\t%s\n", name, valueText(field, m.Get(field)))
	}
}

// cells are the values of columns, which are paths of fields.
func cells(m protoreflect.Message, columns []string) []string {
	values := make([]string, len(columns))
	for i, column := range columns {
		values[i] = "-"
		at := m
		for path := strings.Split(column, "."); len(path) > 0; path = path[1:] {
			field := at.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
			if field == nil || field.HasPresence() && !at.Has(field) {
				break
			}
			if len(path) > 1 {
				at = at.Get(field).Message()
				continue
			}
			if text := valueText(field, at.Get(field)); text != "" {
				values[i] = text
			}
		}
	}
	return values
}

func valueText(field protoreflect.FieldDescriptor, value protoreflect.Value) string {
	if field.IsMap() {
		return "…"
	}
	if field.IsList() {
		texts := make([]string, value.List().Len())
		for i := range texts {
			texts[i] = oneText(field, value.List().Get(i))
		}
		return strings.Join(texts, ", ")
	}
	return oneText(field, value)
}

func oneText(field protoreflect.FieldDescriptor, value protoreflect.Value) string {
	switch field.Kind() {
	case protoreflect.EnumKind:
		if known := field.Enum().Values().ByNumber(value.Enum()); known != nil {
			if known.Number() == 0 {
				return ""
			}
			return EnumText(known)
		}
		return fmt.Sprint(value.Enum())
	case protoreflect.BytesKind:
		if data := value.Bytes(); !utf8.Valid(data) || len(data) == 32 {
			return hex.EncodeToString(data)
		}
		return Printable(string(value.Bytes()))
	case protoreflect.MessageKind:
		switch m := value.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			return m.AsTime().Format(time.RFC3339)
		case *durationpb.Duration:
			return m.AsDuration().String()
		default:
			text, err := marshal(m)
			var line bytes.Buffer
			if err != nil || json.Compact(&line, text) != nil {
				return "…"
			}
			return Printable(line.String())
		}
	}
	return Printable(value.String())
}

// Printable is text that came from elsewhere, without what would steer a terminal, break a table, or turn around what stands beside it.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			return '?'
		}
		return r
	}, text)
}
