// Package bench measures a running Kapsel from outside: a generator posts signed
// webhooks to an ingest URL, a sink receives the deliveries, and every webhook is
// followed by its own id from the scheduled send to the sealed tree head.
//
// Generator, sink, server and database usually share one machine, so what the
// harness costs is taken from what it measures. Both ends therefore speak a minimal
// HTTP/1.1 over plain connections, and per webhook write nothing but three times
// into a preallocated ledger; every count and percentile is worked out after the run.
//
// The package keeps two promises. A webhook counts as lost when, and only when, it
// was answered 202 and never reached the sink. A latency starts when the webhook was
// due, not when the generator got round to sending it, so a stalled server cannot
// hide behind the requests it held back (coordinated omission).
//
// Run measures a load alone. The scenarios (RunNoisy, RunBacklog, RunInFlight) measure it beside
// a dead destination, or with a slow one; they need a Server, which is a probe that can also be
// given a backlog.
//
// It imports nothing of the server, and learns what happens inside through Probe.
package bench
