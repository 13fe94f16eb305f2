// Package proto holds what tools want to know of the contract at run time: its descriptors with their comments.
package proto

import (
	_ "embed"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

//go:embed contract.binpb
var contract []byte // made by make generate

// Descriptors are the contract's files, comments included, without those that they import.
func Descriptors() (*descriptorpb.FileDescriptorSet, error) {
	var files descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(contract, &files); err != nil {
		return nil, fmt.Errorf("read the contract's descriptors: %w", err)
	}
	return &files, nil
}

//go:embed openapi.yaml
var openAPI []byte // made by make generate of openapi.base.yaml and the contract

// OpenAPI is the description of the HTTP interface, OpenAPI 3.1 as YAML. It must not be changed.
func OpenAPI() []byte { return openAPI }
