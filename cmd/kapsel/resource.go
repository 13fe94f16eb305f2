package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/kapsel-dev/kapsel/internal/protocli"
)

// rpcAnnotation marks a command that is one call of an rpc, and no more. Its value is the rpc.
const rpcAnnotation = "rpc"

// resource is one run of a command that calls an rpc.
type resource struct {
	spec   rpcCommand
	method protoreflect.MethodDescriptor
	fields *protocli.Fields
	server clientFlags
	output outputFlag
	data   string
	limit  int
	sure   bool
}

func newResource(spec rpcCommand, method protoreflect.MethodDescriptor, comments protocli.Comments) *cobra.Command {
	r := &resource{spec: spec, method: method}
	use, args := spec.verb, cobra.PositionalArgs(noArgs)
	if spec.argument != "" {
		use += " " + strings.ToUpper(spec.argument)
		args = oneArg
	}
	cmd := &cobra.Command{
		Use: use, Short: comments.Short(method.FullName()), Long: comments.Long(method.FullName()), Args: args,
		Example:     r.example(),
		Annotations: map[string]string{rpcAnnotation: spec.rpc},
		RunE:        func(cmd *cobra.Command, args []string) error { return r.run(cmd, args) },
	}
	flags := cmd.Flags()
	r.server.add(flags)
	r.output.add(cmd)
	flags.StringVar(&r.data, "data", "", "the whole request as JSON: text, @file, or - for standard input; flags change it")
	if r.pages() {
		flags.IntVar(&r.limit, "limit", 50, "how many to list; 0: all")
	}
	if spec.sure {
		flags.BoolVar(&r.sure, "yes", false, "really do it: it cannot be undone")
		flags.Lookup("yes").Annotations = map[string][]string{notFromEnvironment: nil}
	}
	taken := func(name string) bool { return flags.Lookup(name) != nil }
	r.fields = protocli.NewFields(method.Input(), comments, taken, spec.argument, "page_size", "page_token", "resume_token")
	r.fields.Add(flags)
	for _, name := range r.fields.Names() { // they are of one call: KAPSEL_STATE would be a surprise
		flags.Lookup(name).Annotations = map[string][]string{notFromEnvironment: nil}
		cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(r.fields.Choices(name), cobra.ShellCompDirectiveNoFileComp))
	}
	return cmd
}

func (r *resource) example() string {
	line := "  kapsel " + r.spec.group + " " + r.spec.verb
	if r.spec.argument != "" {
		line += " " + strings.ToUpper(r.spec.argument)
	}
	switch {
	case r.spec.sure:
		return line + " --yes"
	case r.pages():
		return line + " --limit 10 -o json"
	case r.spec.verb == "create":
		return line + " --data @request.json\n" + line + " --display-name Orders -o yaml"
	}
	return line + " -o json"
}

// pages reports whether the rpc lists in pages.
func (r *resource) pages() bool {
	return r.method.Input().Fields().ByName("page_token") != nil && r.method.Output().Fields().ByName("next_page_token") != nil
}

func (r *resource) run(cmd *cobra.Command, args []string) error {
	if r.spec.sure && !r.sure {
		return usageError(fmt.Errorf("this cannot be undone: say --yes to do it"))
	}
	if r.limit < 0 {
		return usageError(errors.New("--limit must be 0 or more"))
	}
	printer, err := r.output.printer(cmd)
	if err != nil {
		return err
	}
	request, err := r.request(cmd, args)
	if err != nil {
		return err
	}
	d, err := r.server.demo()
	if err != nil {
		return err
	}
	call := r.answer
	switch {
	case r.method.IsStreamingServer():
		call = r.follow
	case r.pages():
		call = r.list
	}
	if err := call(cmd, newClient(d.URL, d.APIKey), request, printer); err != nil {
		return fmt.Errorf("%s %s: %w", r.spec.group, r.spec.verb, err)
	}
	return nil
}

// request is what the flags, the argument and --data ask for. What the contract refuses is refused here, before anything is sent.
func (r *resource) request(cmd *cobra.Command, args []string) (proto.Message, error) {
	request, err := newMessage(r.method.Input())
	if err != nil {
		return nil, err
	}
	if r.data != "" {
		text, err := readData(cmd, r.data)
		if err != nil {
			return nil, err
		}
		if err := protojson.Unmarshal(text, request); err != nil {
			return nil, usageError(fmt.Errorf("--data is not a %s as JSON: %w", r.method.Input().Name(), err))
		}
	}
	m := request.ProtoReflect()
	if len(args) == 1 {
		field := m.Descriptor().Fields().ByName(protoreflect.Name(r.spec.argument))
		value, err := protocli.ParseValue(field, args[0], m.NewField)
		if err != nil {
			return nil, usageError(fmt.Errorf("%s: %w", strings.ToUpper(r.spec.argument), err))
		}
		m.Set(field, value)
	}
	paths, err := r.fields.Apply(m)
	if err != nil {
		return nil, usageError(err)
	}
	if mask := m.Descriptor().Fields().ByName("update_mask"); mask != nil && !m.Has(mask) {
		m.Set(mask, protoreflect.ValueOfMessage((&fieldmaskpb.FieldMask{Paths: resourcePaths(paths)}).ProtoReflect()))
	}
	return request, checkRequest(cmd, request)
}

// checkRequest refuses what the contract's rules refuse.
func checkRequest(cmd *cobra.Command, request proto.Message) error {
	err := protovalidate.Validate(request)
	if err == nil {
		return nil
	}
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) {
		return fmt.Errorf("check the request: %w", err)
	}
	var all []string
	for _, violation := range invalid.Violations {
		all = append(all, violationText(cmd, request, violation))
	}
	return usageError(fmt.Errorf("%s: see %s --help", strings.Join(all, "; "), cmd.CommandPath()))
}

var idPattern = regexp.MustCompile(`^\^([a-z]{2,8})_\[0-7\]`)

// violationText says what is wrong, in the words of the command line where the contract's say little to people.
func violationText(cmd *cobra.Command, request proto.Message, violation *protovalidate.Violation) string {
	path := protovalidate.FieldPathString(violation.Proto.GetField())
	if choice := request.ProtoReflect().Descriptor().Oneofs().ByName(protoreflect.Name(path)); choice != nil {
		var flags []string
		for i := range choice.Fields().Len() {
			if name := strings.ReplaceAll(string(choice.Fields().Get(i).Name()), "_", "-"); cmd.Flags().Lookup(name) != nil {
				flags = append(flags, "--"+name)
			}
		}
		return "give one of " + strings.Join(flags, ", ")
	}
	if pattern := idPattern.FindStringSubmatch(violation.RuleValue.String()); pattern != nil {
		return path + " is not an id of the form " + pattern[1] + "_ and 26 characters"
	}
	if violation.Proto.GetRuleId() == "required" {
		return path + " is missing"
	}
	return strings.TrimSpace(path + " " + violation.Proto.GetMessage())
}

// resourcePaths are paths of fields of the resource that a request changes, without the resource's own name.
func resourcePaths(paths []string) (inner []string) {
	for _, path := range paths {
		if _, rest, within := strings.Cut(path, "."); within {
			inner = append(inner, rest)
		}
	}
	return inner
}

func newMessage(descriptor protoreflect.MessageDescriptor) (proto.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", descriptor.FullName(), err)
	}
	return kind.New().Interface(), nil
}

// maxDataBytes is more than any request may have.
const maxDataBytes = 48 << 20

// readData reads JSON that was given as text, @file or -.
func readData(cmd *cobra.Command, given string) ([]byte, error) {
	path, isFile := strings.CutPrefix(given, "@")
	if !isFile && given != "-" {
		return []byte(given), nil
	}
	text, err := readBounded(cmd.InOrStdin(), path, maxDataBytes)
	if err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	return text, nil
}

func (r *resource) call(ctx context.Context, c client, request proto.Message) (proto.Message, error) {
	response, err := newMessage(r.method.Output())
	if err != nil {
		return nil, err
	}
	return response, c.raw.CallUnary(ctx, r.connectSpec(connect.StreamTypeUnary), request, response)
}

func (r *resource) connectSpec(kind connect.StreamType) connect.Spec {
	return connect.Spec{StreamType: kind, Schema: r.method, Procedure: fmt.Sprintf("/%s/%s", r.method.Parent().FullName(), r.method.Name())}
}

// answer prints what a call brings: the resource alone, where the response holds nothing else.
func (r *resource) answer(cmd *cobra.Command, c client, request proto.Message, printer protocli.Printer) error {
	response, err := r.call(cmd.Context(), c, request)
	if err != nil {
		return err
	}
	if payload := response.ProtoReflect().Descriptor().Fields().ByName("payload"); payload != nil && printer.Format == protocli.Table {
		_, err := cmd.OutOrStdout().Write(response.ProtoReflect().Get(payload).Bytes())
		return err
	}
	return printer.Message(alone(response))
}

// alone is the one message that a response is for, or the response itself where it may have more. That is the same for all
// answers of an rpc, so that programs can rely on it.
func alone(response proto.Message) proto.Message {
	m := response.ProtoReflect()
	if m.Descriptor().Fields().Len() != 1 {
		return response
	}
	only := m.Descriptor().Fields().Get(0)
	if only.Message() == nil || only.IsList() || only.IsMap() {
		return response
	}
	return m.Get(only).Message().Interface()
}

// list reads pages up to the limit.
func (r *resource) list(cmd *cobra.Command, c client, request proto.Message, printer protocli.Printer) error {
	m := request.ProtoReflect()
	fields := m.Descriptor().Fields()
	var all []proto.Message
	more := ""
	for {
		size := 1000
		if r.limit > 0 {
			size = min(size, r.limit-len(all))
		}
		m.Set(fields.ByName("page_size"), protoreflect.ValueOfInt32(int32(size)))
		response, err := r.call(cmd.Context(), c, request)
		if err != nil {
			return err
		}
		answer := response.ProtoReflect()
		answer.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
			if field.IsList() && field.Message() != nil {
				for i := range value.List().Len() {
					all = append(all, value.List().Get(i).Message().Interface())
				}
			}
			return true
		})
		more = answer.Get(answer.Descriptor().Fields().ByName("next_page_token")).String()
		if more == "" || r.limit > 0 && len(all) >= r.limit {
			break
		}
		m.Set(fields.ByName("page_token"), protoreflect.ValueOfString(more))
	}
	if more != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "there are more: raise --limit, or list all with --limit 0")
	}
	return printer.List(all, strings.Fields(r.spec.columns))
}

// listRPC lists in another format than the table that a command has of its own.
func listRPC(cmd *cobra.Command, c client, rpc string, request proto.Message, limit int, printer protocli.Printer) error {
	r := &resource{method: rpcMethod(rpc), limit: limit}
	if err := r.list(cmd, c, request, printer); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	return nil
}

// follow prints a stream, a message at a time, until Ctrl-C or its end.
func (r *resource) follow(cmd *cobra.Command, c client, request proto.Message, printer protocli.Printer) error {
	stream, err := c.raw.CallServerStream(cmd.Context(), r.connectSpec(connect.StreamTypeServer), request)
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		response, err := newMessage(r.method.Output())
		if err != nil {
			return err
		}
		if err := stream.Receive(response); errors.Is(err, io.EOF) || cmd.Context().Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		m := response.ProtoReflect()
		if beat := m.Descriptor().Fields().ByName("heartbeat"); beat != nil && m.Has(beat) {
			continue
		}
		if err := printer.Line(response, strings.Fields(r.spec.columns)); err != nil {
			return err
		}
	}
}

// outputFlag chooses the format.
type outputFlag string

var outputFormats = []string{string(protocli.Table), string(protocli.JSON), string(protocli.YAML)}

func (o *outputFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP((*string)(o), "output", "o", string(protocli.Table), "format: "+strings.Join(outputFormats, ", "))
	cmd.Flags().Lookup("output").Annotations = map[string][]string{notFromEnvironment: nil} // elsewhere it names a file
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputFormats, cobra.ShellCompDirectiveNoFileComp))
}

func (o *outputFlag) printer(cmd *cobra.Command) (protocli.Printer, error) {
	if !slices.Contains(outputFormats, string(*o)) {
		return protocli.Printer{}, usageError(fmt.Errorf("--output: there is no %q: choose of %s", printable(string(*o)), strings.Join(outputFormats, ", ")))
	}
	return protocli.Printer{Out: cmd.OutOrStdout(), Format: protocli.Format(cmp.Or(string(*o), string(protocli.Table))), Bold: isColourful(cmd.OutOrStdout())}, nil
}

// print writes the text, or in another format what the server answered.
func (o *outputFlag) print(printer protocli.Printer, response proto.Message, text string) error {
	if printer.Format != protocli.Table {
		return printer.Message(alone(response))
	}
	_, err := io.WriteString(printer.Out, text)
	return err
}

// isColourful reports whether what is written may be coloured: people watch, and have not said no (no-color.org).
func isColourful(w io.Writer) bool { return isTerminal(w) && os.Getenv("NO_COLOR") == "" }
