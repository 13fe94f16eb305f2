package node

import (
	"log/slog"
	"time"
)

const (
	// maxClockDifference is what receivers of signed webhooks begin to refuse at, and far above what NTP leaves.
	maxClockDifference = time.Minute
	clockWarning       = time.Hour
)

// clockCheck complains about a node's clock that is wrong, or the database's: nothing is lost by it, but times in ids, leaves and
// signatures are read off it.
type clockCheck struct{ warned time.Time }

// compare takes the time that the database told between asked and answered.
func (c *clockCheck) compare(database, asked, answered time.Time, log *slog.Logger) {
	var ahead time.Duration
	switch {
	case asked.After(database):
		ahead = asked.Sub(database)
	case answered.Before(database):
		ahead = answered.Sub(database)
	}
	if ahead.Abs() <= maxClockDifference || !c.warned.IsZero() && answered.Sub(c.warned) < clockWarning {
		return
	}
	c.warned = answered
	log.Warn("this node's clock and the database's differ: times in ids, leaves and signatures are wrong, run NTP on both", "ahead", ahead.Round(time.Second))
}
