package main

import (
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare of the control group's limit is the collector's: the rest is for stacks, buffers of the kernel and what the
// heap grows by while it is collected.
const memoryShare = 0.9

// limitMemory tells the collector about the memory limit of this process's control group, which it does not know of by
// itself: near the limit it collects more often, instead of being killed. GOMEMLIMIT overrides it.
func limitMemory(log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := memoryLimit(os.DirFS("/"))
	if limit == 0 {
		return
	}
	limit = int64(float64(limit) * memoryShare)
	debug.SetMemoryLimit(limit)
	log.Info("memory is limited by the control group", "limit_bytes", limit)
}

// memoryLimit is the least limit of this process's control group and those above it, in bytes; 0 when there is none.
// Version 2 has all controllers in one tree (cgroups(7), memory.max), version 1 has one for memory. In a container the
// tree that is mounted may begin at the process's own group, whatever path /proc names: then the root's limit is its own.
func memoryLimit(root fs.FS) int64 {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	least := int64(math.MaxInt64)
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy:controllers:path
		if len(fields) != 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		if fields[1] != "" {
			if !strings.Contains(","+fields[1]+",", ",memory,") {
				continue
			}
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		for group := path.Clean("/" + fields[2]); ; group = path.Dir(group) {
			if limit := readLimit(root, path.Join(mount, group, file)); limit > 0 {
				least = min(least, limit)
			}
			if group == "/" {
				break
			}
		}
	}
	if least >= noLimit {
		return 0
	}
	return least
}

// noLimit and above is what version 1 says without a limit: the largest number of pages.
const noLimit = math.MaxInt64 / 2

// readLimit reads one file; 0 when it is not there, or says "max".
func readLimit(root fs.FS, name string) int64 {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return limit
}
