package server

import (
	"strings"

	"connectrpc.com/connect/v2"

	"github.com/kapsel-dev/kapsel/internal/tenant"
)

// public marks an rpc that asks for no API key.
const public tenant.Scope = ""

// access is what an rpc asks of its caller.
type access struct {
	scope tenant.Scope
	// operators may call it too, for any tenant.
	operators bool
	// suspended tenants may call it. They may also call all that asks for scope Read.
	suspended bool
}

// accesses has each rpc of the contract, as its comments say. TestEachRPCAsksForAScope fails for one that is missing here.
var accesses = map[string]access{
	"IngestService/Ingest":      {scope: tenant.Ingest},
	"IngestService/IngestBatch": {scope: tenant.Ingest},

	"EndpointService/CreateEndpoint":       {scope: tenant.Manage},
	"EndpointService/GetEndpoint":          {scope: tenant.Read},
	"EndpointService/ListEndpoints":        {scope: tenant.Read},
	"EndpointService/UpdateEndpoint":       {scope: tenant.Manage},
	"EndpointService/DeleteEndpoint":       {scope: tenant.Manage},
	"EndpointService/RotateEndpointSecret": {scope: tenant.Manage},

	"DestinationService/CreateDestination":       {scope: tenant.Manage},
	"DestinationService/GetDestination":          {scope: tenant.Read},
	"DestinationService/ListDestinations":        {scope: tenant.Read},
	"DestinationService/UpdateDestination":       {scope: tenant.Manage},
	"DestinationService/DeleteDestination":       {scope: tenant.Manage},
	"DestinationService/RotateDestinationSecret": {scope: tenant.Manage},
	"DestinationService/PauseDestination":        {scope: tenant.Manage},
	"DestinationService/ResumeDestination":       {scope: tenant.Manage},
	"DestinationService/SendTest":                {scope: tenant.Manage},
	"DestinationService/GetDestinationHealth":    {scope: tenant.Read},

	"EventService/GetEvent":    {scope: tenant.Read},
	"EventService/ListEvents":  {scope: tenant.Read},
	"EventService/GetPayload":  {scope: tenant.Read},
	"EventService/ReplayEvent": {scope: tenant.Manage},
	"EventService/WatchEvents": {scope: tenant.Read},
	"EventService/EraseEvent":  {scope: tenant.Admin},

	"DeliveryService/GetDelivery":       {scope: tenant.Read},
	"DeliveryService/ListDeliveries":    {scope: tenant.Read},
	"DeliveryService/ListAttempts":      {scope: tenant.Read},
	"DeliveryService/GetAttempt":        {scope: tenant.Read},
	"DeliveryService/RetryDelivery":     {scope: tenant.Manage},
	"DeliveryService/CancelDelivery":    {scope: tenant.Manage},
	"DeliveryService/ListDeadLetters":   {scope: tenant.Read},
	"DeliveryService/ReplayDeadLetters": {scope: tenant.Manage},
	"DeliveryService/GetReplay":         {scope: tenant.Read},
	"DeliveryService/ListReplays":       {scope: tenant.Read},
	"DeliveryService/CancelReplay":      {scope: tenant.Manage},

	"AttestationService/GetLog":              {scope: public},
	"AttestationService/GetTreeHead":         {scope: public},
	"AttestationService/ListTreeHeads":       {scope: public},
	"AttestationService/WatchTreeHeads":      {scope: public},
	"AttestationService/GetInclusionProof":   {scope: public}, // by attempt: see reader
	"AttestationService/GetConsistencyProof": {scope: public},
	"AttestationService/GetProofPackage":     {scope: tenant.Read},
	"AttestationService/ExportProofPackages": {scope: tenant.Read},
	"AttestationService/SealLog":             {scope: tenant.Operator},

	"TenantService/CreateTenant":     {scope: tenant.Operator},
	"TenantService/GetTenant":        {scope: tenant.Read, operators: true},
	"TenantService/ListTenants":      {scope: tenant.Operator},
	"TenantService/UpdateTenant":     {scope: tenant.Admin, operators: true},
	"TenantService/DeleteTenant":     {scope: tenant.Operator},
	"TenantService/GetUsage":         {scope: tenant.Read, operators: true},
	"TenantService/CreateApiKey":     {scope: tenant.Admin, operators: true},
	"TenantService/ListApiKeys":      {scope: tenant.Admin, operators: true, suspended: true},
	"TenantService/RevokeApiKey":     {scope: tenant.Admin, operators: true, suspended: true},
	"TenantService/ListAuditEntries": {scope: tenant.Admin, operators: true, suspended: true},

	"ListenService/Listen": {scope: tenant.Manage},
	"ListenService/Report": {scope: tenant.Manage},
}

// Scope says for people what an rpc, such as "EndpointService/GetEndpoint", asks of an API key. It reports false if there is no such rpc.
func Scope(rpc string) (string, bool) {
	needed, found := accesses[rpc]
	switch scope := strings.ToUpper(string(needed.scope)); {
	case needed.scope == public:
		return "none", found
	case needed.operators:
		return scope + " or OPERATOR", found
	default:
		return scope, found
	}
}

// accessTo is what an rpc asks for. One that the table does not have is the operator's.
func accessTo(spec connect.Spec) access {
	name, ours := strings.CutPrefix(spec.Procedure, "/kapsel.v1.")
	if !ours {
		return access{scope: public} // reflection
	}
	if needed, found := accesses[name]; found {
		return needed
	}
	return access{scope: tenant.Operator}
}

// check refuses a caller who may not.
func (a access) check(p tenant.Principal) error {
	if a.scope == public || a.operators && p.IsOperator() {
		return nil
	}
	if a.suspended {
		p.Suspended = false
	}
	return authError(p.Authorize(a.scope), a.scope)
}
