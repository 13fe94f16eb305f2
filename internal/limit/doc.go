// Package limit keeps tenants out of each other's way, and counts what they use.
//
// It stands on a webhook's way twice. Sources takes little but time from who cannot prove to be anybody: it is asked before
// a signature or an API key is checked. Limiter is asked after that, so that forged webhooks spend nothing of a tenant's
// budget, and before anything is stored.
//
// Its invariants: a webhook costs no query, whatever its tenant's limits are; what is remembered is bounded, by the number
// of tenants or by a count; who is refused is told when to come again, and gets in then if nobody else was faster. Limits
// hold over all nodes: a rate is shared by demand, and a day's quota may be exceeded by what the other nodes take in within
// a second. A node that is killed loses what it counted in its last second.
package limit
