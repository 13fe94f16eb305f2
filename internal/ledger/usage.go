package ledger

import "github.com/google/uuid"

// meter counts what a committed batch was, tenant by tenant. indexes are those of its leaves.
func (b *batch) meter(indexes map[uuid.UUID]int64, usage UsageMeter) {
	type counts struct{ attempts, delivered, dead int64 }
	used := make(map[uuid.UUID]counts)
	for i, leafID := range b.params.LeafIds {
		if _, written := indexes[leafID]; !written {
			continue
		}
		c := used[b.params.LeafTenantIds[i]]
		if b.params.LeafOutcomes[i] == 0 { // a dead letter
			c.dead++
		} else {
			c.attempts++
		}
		used[b.params.LeafTenantIds[i]] = c
	}
	for i := range b.results {
		r := &b.results[i]
		if _, written := indexes[b.leafOf[i]]; written && r.Verdict.Delivered {
			c := used[r.Duty.Event.TenantID]
			c.delivered++
			used[r.Duty.Event.TenantID] = c
		}
	}
	for tenantID, c := range used {
		usage.Recorded(tenantID, c.attempts, c.delivered, c.dead)
	}
}
