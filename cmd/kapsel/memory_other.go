//go:build !linux

package main

import "log/slog"

// limitMemory does nothing: control groups are Linux's. GOMEMLIMIT works everywhere.
func limitMemory(*slog.Logger) {}
