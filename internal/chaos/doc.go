// Package chaos holds the long scenarios: the real program, started from outside as a process, on a real PostgreSQL with
// every guarantee on, with real sources and a real destination, while something is killed.
//
// The files beside the tests are the harness. [Binary] builds the program once, [Launch] runs it, [Cluster] is a
// PostgreSQL with nodes on it, [Link] a way between two processes that can be made to fail, [Load] is sources that do not
// give up, [Sink] a destination that counts by event, [Ledger] what the database says happened, [LogClient] an independent
// reader of the served log. A scenario puts the load on, does its harm, waits until all is settled, and compares what the
// sources were promised, what the destination got, what the ledger says and what the log proves. TestStormLosesNothing does
// all kinds of harm at once, for as long as it is told.
//
// Scenarios draw from a seed, which a failing test prints; KAPSEL_CHAOS_SEED repeats it.
package chaos
