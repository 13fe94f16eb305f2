//go:build !linux

package store

import "time"

// limitSilence leaves it at what the system does.
func limitSilence(uintptr, time.Duration) error { return nil }
