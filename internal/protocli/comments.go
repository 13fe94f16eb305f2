package protocli

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Comments are the contract's comments by the full name of what they stand at.
type Comments map[protoreflect.FullName]string

// ReadComments collects the leading comments of messages, fields, services and rpcs. The compiled-in descriptors have none.
func ReadComments(files *descriptorpb.FileDescriptorSet) Comments {
	comments := make(Comments)
	for _, file := range files.File {
		for _, location := range file.GetSourceCodeInfo().GetLocation() {
			if name := nameAt(file, location.Path); name != "" && location.GetLeadingComments() != "" {
				comments[protoreflect.FullName(file.GetPackage()+"."+name)] = strings.TrimSpace(location.GetLeadingComments())
			}
		}
	}
	return comments
}

// nameAt is what a path of descriptor.proto leads to: numbers of fields and indexes, taking turns.
func nameAt(file *descriptorpb.FileDescriptorProto, path []int32) string {
	const messages, services, fields, methods = 4, 6, 2, 2
	switch {
	case len(path) == 2 && path[0] == messages:
		return file.MessageType[path[1]].GetName()
	case len(path) == 4 && path[0] == messages && path[2] == fields:
		message := file.MessageType[path[1]]
		return message.GetName() + "." + message.Field[path[3]].GetName()
	case len(path) == 2 && path[0] == services:
		return file.Service[path[1]].GetName()
	case len(path) == 4 && path[0] == services && path[2] == methods:
		service := file.Service[path[1]]
		return service.GetName() + "." + service.Method[path[3]].GetName()
	}
	return ""
}

// Text is the comment of a thing as one paragraph, "" when it has none.
func (c Comments) Text(name protoreflect.FullName) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(c[name], "`", "'")), " ")
}

// Long is the comment of an rpc, or of another thing, as it is, without its name at the beginning.
func (c Comments) Long(name protoreflect.FullName) string {
	text := strings.TrimPrefix(c[name], string(name.Name())+" ")
	if text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, " ")
	}
	return strings.ToUpper(text[:1]) + strings.Join(lines, "\n")[1:]
}

// Short is the first sentence of Long.
func (c Comments) Short(name protoreflect.FullName) string {
	text := strings.Join(strings.Fields(c.Long(name)), " ")
	if end := strings.Index(text, ". "); end >= 0 {
		return text[:end]
	}
	return strings.TrimSuffix(text, ".")
}
