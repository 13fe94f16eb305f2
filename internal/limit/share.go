package limit

// share is the part of a tenant's rate that this node gives out: as large as its part of what was offered to all nodes
// lately. Equal parts would be simpler, and would cost a source that a balancer keeps at one node the others' parts.
//
// Each node sees what all nodes were offered when it writes its own counts, so this costs no message. A node at which
// nothing arrives has an equal part for the beginning. So for a second or two after the demand has moved, all nodes
// together may give out up to twice the rate, or a node less than it could.
type share struct {
	part float64 // above 0, at most 1
	// What was offered to this node and to all, the last second's in full and each earlier one's half.
	own, all float64
	// seen is the number that was offered to all nodes on this day a second ago; unseen: not known.
	seen int64
}

const (
	unseen = -1
	// minPart of an equal part: a node with little of the demand still gains tokens.
	minPart = 0.05
)

// idle says that nothing was offered to this node for a second.
func (s *share) idle(nodes int) {
	s.own /= 2
	s.all /= 2
	s.seen = unseen
	if s.own < 0.5 || nodes == 1 {
		s.own, s.all = 0, 0
		s.part = 1 / float64(nodes)
	}
}

// learn takes what was offered to this node since it asked last, and to all on this day so far.
func (s *share) learn(own, total int64, nodes int) {
	before := s.seen
	s.seen = total
	equal := 1 / float64(nodes)
	if nodes == 1 || s.own == 0 {
		s.part = equal
	}
	if nodes == 1 || before == unseen || own == 0 { // only results of deliveries may have been counted
		return
	}
	s.own = s.own/2 + float64(own)
	s.all = s.all/2 + float64(max(own, total-before))
	s.part = min(1, max(s.own/s.all, minPart*equal))
}
