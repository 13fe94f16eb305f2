// Package kapsel is the client of Kapsel, the webhook reliability service: typed clients of its API that try again where that is
// safe, streams that go on after an interruption, and the verification of what Kapsel delivers.
//
//	client, err := kapsel.New("https://kapsel.example.com", kapsel.WithAPIKey(os.Getenv("KAPSEL_API_KEY")))
//
// Requests, responses and services are those of the contract, package gen/kapsel/v1. [Client.WatchEvents], [Client.WatchTreeHeads],
// [Client.ExportProofPackages] and [Client.ListenDeliveries] are iterators that bridge interruptions; [Verifier] checks a webhook's
// Standard Webhooks signature, alone or as a middleware; package sdk/go/verify checks proof packages. What often comes together has a
// short form: [Client.CreateRoute], [Client.IngestAndWait], [Client.GetVerifiedProofs].
//
// The package imports the generated contract, the verifier, Connect, Protocol Buffers and the standard library, and nothing of the server.
package kapsel
