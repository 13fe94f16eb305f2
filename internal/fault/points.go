package fault

// Name is a failure point.
type Name string

// The points, in the order of a webhook's way.
const (
	IngestTaken          Name = "ingest.taken"           // a batch is in the committer's hands only
	IngestBeforeCommit   Name = "ingest.before_commit"   // a batch is about to be written
	IngestAfterCommit    Name = "ingest.after_commit"    // it is committed, and nobody was answered
	IngestHandOver       Name = "ingest.hand_over"       // its deliveries are about to be handed over in memory
	DeliveryAfterClaim   Name = "delivery.after_claim"   // rows are leased, and nothing is loaded
	DeliverySettle       Name = "delivery.settle"        // a delivery that is not sent is about to be settled
	DeliveryBeforeSend   Name = "delivery.before_send"   // an attempt is about to reach the network
	DeliveryAfterSend    Name = "delivery.after_send"    // it has an outcome that nobody knows of
	RecorderTaken        Name = "recorder.taken"         // results are in the recorder's hands only
	RecorderBeforeCommit Name = "recorder.before_commit" // results are about to be written
	RecorderAfterCommit  Name = "recorder.after_commit"  // they are committed, and their room is not given back
	SealerBeforeTiles    Name = "sealer.before_tiles"    // the tree has grown in memory
	SealerAfterTiles     Name = "sealer.after_tiles"     // its tiles are durable
	SealerBeforeSign     Name = "sealer.before_sign"     // and checked
	SealerAfterHighWater Name = "sealer.after_highwater" // its head is signed and the mark on disk, and nobody has seen it
	SealerAfterCosign    Name = "sealer.after_cosign"    // and witnesses have cosigned it, if there are any
	MembershipBeat       Name = "membership.beat"        // a heartbeat is about to be sent
	HolderTick           Name = "holder.tick"            // the holder is about to look
	RemovalsSweep        Name = "removals.sweep"         // deliveries of deleted destinations are about to be looked for
	ReplayerStep         Name = "replayer.step"          // a replay is taken, its step not made
	RoutesRead           Name = "routes.read"            // the configuration is about to be read
	NodeNotice           Name = "node.notice"            // a notification has come
	NodeHeads            Name = "node.heads"             // another node's head is about to be read
	NodeMaintenance      Name = "node.maintenance"       // partitions are about to be made
	UsageWrite           Name = "usage.write"            // counts of tenants are about to be written
)

// Names are all points.
func Names() []Name {
	return []Name{
		IngestTaken, IngestBeforeCommit, IngestAfterCommit, IngestHandOver,
		DeliveryAfterClaim, DeliverySettle, DeliveryBeforeSend, DeliveryAfterSend,
		RecorderTaken, RecorderBeforeCommit, RecorderAfterCommit,
		SealerBeforeTiles, SealerAfterTiles, SealerBeforeSign, SealerAfterHighWater, SealerAfterCosign,
		MembershipBeat, HolderTick, RemovalsSweep, ReplayerStep, RoutesRead, NodeNotice, NodeHeads, NodeMaintenance, UsageWrite,
	}
}
