package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/protocli"
	contract "github.com/kapsel-dev/kapsel/proto"
)

// rpcCommand is an rpc of the contract as a command. Its flags and its help come from the contract.
type rpcCommand struct {
	group, verb string
	rpc         string // Service/Method, without what all have in common
	argument    string // field of the request that stands without a flag; "" when there is none
	columns     string // of a table of what it lists, paths of fields
	sure        bool   // it cannot be undone: --yes must be given
}

// rpcCommands are all that need nothing but a call. The others have a command of their own.
var rpcCommands = []rpcCommand{
	{group: "endpoints", verb: "create", rpc: "EndpointService/CreateEndpoint"},
	{group: "endpoints", verb: "get", rpc: "EndpointService/GetEndpoint", argument: "endpoint_id"},
	{group: "endpoints", verb: "list", rpc: "EndpointService/ListEndpoints", columns: "id state verification.preset create_time display_name"},
	{group: "endpoints", verb: "update", rpc: "EndpointService/UpdateEndpoint", argument: "endpoint_id"},
	{group: "endpoints", verb: "delete", rpc: "EndpointService/DeleteEndpoint", argument: "endpoint_id", sure: true},
	{group: "endpoints", verb: "rotate-secret", rpc: "EndpointService/RotateEndpointSecret", argument: "endpoint_id"},

	{group: "destinations", verb: "create", rpc: "DestinationService/CreateDestination"},
	{group: "destinations", verb: "get", rpc: "DestinationService/GetDestination", argument: "destination_id"},
	{group: "destinations", verb: "list", rpc: "DestinationService/ListDestinations", columns: "id endpoint_id state url display_name"},
	{group: "destinations", verb: "update", rpc: "DestinationService/UpdateDestination", argument: "destination_id"},
	{group: "destinations", verb: "delete", rpc: "DestinationService/DeleteDestination", argument: "destination_id", sure: true},
	{group: "destinations", verb: "rotate-secret", rpc: "DestinationService/RotateDestinationSecret", argument: "destination_id"},
	{group: "destinations", verb: "pause", rpc: "DestinationService/PauseDestination", argument: "destination_id"},
	{group: "destinations", verb: "resume", rpc: "DestinationService/ResumeDestination", argument: "destination_id"},
	{group: "destinations", verb: "test", rpc: "DestinationService/SendTest", argument: "destination_id"},
	{group: "destinations", verb: "health", rpc: "DestinationService/GetDestinationHealth", argument: "destination_id"},

	{group: "events", verb: "ingest", rpc: "IngestService/Ingest", argument: "endpoint_id"},
	{group: "events", verb: "get", rpc: "EventService/GetEvent", argument: "event_id"},
	{group: "events", verb: "list", rpc: "EventService/ListEvents", columns: "id received_at state event_type payload_bytes endpoint_id"},
	{group: "events", verb: "payload", rpc: "EventService/GetPayload", argument: "event_id"},
	{group: "events", verb: "replay", rpc: "EventService/ReplayEvent", argument: "event_id"},
	{group: "events", verb: "erase", rpc: "EventService/EraseEvent", argument: "event_id", sure: true},

	{group: "deliveries", verb: "get", rpc: "DeliveryService/GetDelivery", argument: "delivery_id"},
	{group: "deliveries", verb: "list", rpc: "DeliveryService/ListDeliveries", columns: "id event_id destination_id state next_attempt_time create_time"},
	{group: "deliveries", verb: "retry", rpc: "DeliveryService/RetryDelivery", argument: "delivery_id"},
	{group: "deliveries", verb: "cancel", rpc: "DeliveryService/CancelDelivery", argument: "delivery_id"},

	{group: "attempts", verb: "get", rpc: "DeliveryService/GetAttempt", argument: "attempt_id"},
	{group: "attempts", verb: "list", rpc: "DeliveryService/ListAttempts", columns: "id number outcome status_code failure start_time duration leaf_index url"},

	{group: "replays", verb: "get", rpc: "DeliveryService/GetReplay", argument: "replay_id"},
	{group: "replays", verb: "list", rpc: "DeliveryService/ListReplays", columns: "id state matched replayed skipped create_time"},
	{group: "replays", verb: "cancel", rpc: "DeliveryService/CancelReplay", argument: "replay_id"},

	{group: "log", verb: "get", rpc: "AttestationService/GetLog"},
	{group: "log", verb: "head", rpc: "AttestationService/GetTreeHead"},
	{group: "log", verb: "heads", rpc: "AttestationService/ListTreeHeads", columns: "tree_size root_hash sign_time"},
	{group: "log", verb: "watch", rpc: "AttestationService/WatchTreeHeads", columns: "head.tree_head.tree_size head.tree_head.root_hash head.tree_head.sign_time"},
	{group: "log", verb: "inclusion", rpc: "AttestationService/GetInclusionProof"},
	{group: "log", verb: "consistency", rpc: "AttestationService/GetConsistencyProof"},

	{group: "tenants", verb: "get", rpc: "TenantService/GetTenant"},
	{group: "tenants", verb: "update", rpc: "TenantService/UpdateTenant", argument: "tenant_id"},
	{group: "tenants", verb: "usage", rpc: "TenantService/GetUsage"},
	{group: "tenants", verb: "changes", rpc: "TenantService/ListAuditEntries", columns: "time actor action resource_id source_address detail"},
}

// rpcGroups are the commands that hold others, with what stands in the help.
var rpcGroups = []struct{ name, short string }{
	{"endpoints", "Make and change the addresses that sources post to"},
	{"destinations", "Make and change the URLs that events go to"},
	{"events", "Look at accepted webhooks, and deliver them again"},
	{"deliveries", "Look at what is to be delivered, hasten and cancel it"},
	{"attempts", "Look at each try of a delivery"},
	{"replays", "Look at replays of dead letters, and cancel them"},
	{"log", "Ask the log for its heads and proofs"},
}

// fileOf is the descriptor of a service of the contract.
var contractFiles = []protoreflect.FileDescriptor{
	kapselv1.File_kapsel_v1_ingest_proto, kapselv1.File_kapsel_v1_endpoint_proto, kapselv1.File_kapsel_v1_destination_proto,
	kapselv1.File_kapsel_v1_event_proto, kapselv1.File_kapsel_v1_delivery_proto, kapselv1.File_kapsel_v1_attestation_proto,
	kapselv1.File_kapsel_v1_tenant_proto, kapselv1.File_kapsel_v1_listen_proto,
}

// rpcMethod is the descriptor of an rpc, nil when the contract has none of that name.
func rpcMethod(name string) protoreflect.MethodDescriptor {
	service, method, _ := strings.Cut(name, "/")
	for _, file := range contractFiles {
		if found := file.Services().ByName(protoreflect.Name(service)); found != nil {
			return found.Methods().ByName(protoreflect.Name(method))
		}
	}
	return nil
}

// addResources adds a command for each rpc of the table, under its group.
func addResources(root *cobra.Command) {
	comments := make(protocli.Comments)
	if files, err := contract.Descriptors(); err == nil { // it is part of the binary: without it the help would be short
		comments = protocli.ReadComments(files)
	}
	groups := make(map[string]*cobra.Command)
	for _, cmd := range root.Commands() {
		groups[cmd.Name()] = cmd
	}
	for _, group := range rpcGroups {
		cmd := &cobra.Command{Use: group.name, Short: group.short, Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				var verbs []string
				for _, sub := range cmd.Commands() {
					verbs = append(verbs, sub.Name())
				}
				return usageError(errors.New("say what to do: " + cmd.CommandPath() + " " + strings.Join(verbs, ", ")))
			},
		}
		root.AddCommand(cmd)
		groups[group.name] = cmd
	}
	for _, spec := range rpcCommands {
		group, method := groups[spec.group], rpcMethod(spec.rpc)
		if group == nil || method == nil {
			panic(fmt.Sprintf("the table of commands names %s under %s, which is not there", spec.rpc, spec.group)) // a test runs it
		}
		group.AddCommand(newResource(spec, method, comments))
	}
}
