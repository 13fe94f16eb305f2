package main

import (
	"testing"
	"testing/fstest"
)

func TestMemoryLimitIsTheLeastOfTheControlGroups(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no control groups": {nil, 0},
		"version 2": {map[string]string{
			"proc/self/cgroup": "0::/system.slice/kapsel.service\n",
			"sys/fs/cgroup/system.slice/kapsel.service/memory.max": "536870912\n",
		}, 512 << 20},
		"version 2, the parent has less": {map[string]string{
			"proc/self/cgroup":                    "0::/pods/one\n",
			"sys/fs/cgroup/pods/one/memory.max":   "max\n",
			"sys/fs/cgroup/pods/memory.max":       "268435456\n",
			"sys/fs/cgroup/memory.max":            "536870912\n",
			"sys/fs/cgroup/pods/other/memory.max": "1\n",
		}, 256 << 20},
		"version 2, in a container with a tree of its own": {map[string]string{
			"proc/self/cgroup":         "0::/../../elsewhere\n",
			"sys/fs/cgroup/memory.max": "1073741824\n",
		}, 1 << 30},
		"version 2, no limit": {map[string]string{
			"proc/self/cgroup":             "0::/one\n",
			"sys/fs/cgroup/one/memory.max": "max\n",
		}, 0},
		"version 1": {map[string]string{
			"proc/self/cgroup": "9:cpu,cpuacct:/docker/x\n8:memory:/docker/x\n",
			"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "536870912\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          "9223372036854771712\n",
			"sys/fs/cgroup/cpu/docker/x/memory.limit_in_bytes":    "1\n",
		}, 512 << 20},
		"version 1, no limit": {map[string]string{
			"proc/self/cgroup":                           "8:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		"damaged": {map[string]string{
			"proc/self/cgroup":         "nonsense\n0::/\n",
			"sys/fs/cgroup/memory.max": "plenty\n",
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			tree := fstest.MapFS{}
			for path, text := range test.files {
				tree[path] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := memoryLimit(tree); got != test.want {
				t.Errorf("limit %d, want %d", got, test.want)
			}
		})
	}
}
