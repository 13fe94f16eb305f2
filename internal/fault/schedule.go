package fault

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

type action int

const (
	actionError action = iota + 1
	actionDelay
	actionPanic
	actionExit
)

var actions = map[string]action{"error": actionError, "delay": actionDelay, "panic": actionPanic, "exit": actionExit}

// maxDelay bounds a delay: longer ones are outages, which are made from outside.
const maxDelay = time.Minute

// Schedule says which points fail, how, and how often. Each point draws from a sequence of its own, so that the same
// seed gives the same failures at the same passes, whatever other points do.
type Schedule struct {
	rules map[Name]*rule
}

type rule struct {
	action      action
	probability float64
	delay       time.Duration

	mu     sync.Mutex
	random *rand.Rand
}

func (r *rule) draw() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.random.Float64() < r.probability
}

// Parse reads a schedule: items separated by semicolons, "seed=N" and "point=action:probability", with a duration as
// third part for the action delay. It reports all that is wrong at once.
func Parse(text string) (*Schedule, error) {
	s := &Schedule{rules: make(map[Name]*rule)}
	var seed uint64
	var errs []error
	for item := range strings.SplitSeq(text, ";") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		name, value, found := strings.Cut(item, "=")
		if !found {
			errs = append(errs, fmt.Errorf("%q: want point=action:probability", item))
			continue
		}
		if name == "seed" {
			var err error
			if seed, err = strconv.ParseUint(value, 10, 64); err != nil {
				errs = append(errs, fmt.Errorf("seed: %w", err))
			}
			continue
		}
		r, err := parseRule(value)
		if err == nil && !slices.Contains(Names(), Name(name)) {
			err = errors.New("there is no such point")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		s.rules[Name(name)] = r
	}
	for name, r := range s.rules {
		hash := fnv.New64a()
		hash.Write([]byte(name))
		r.random = rand.New(rand.NewPCG(seed, hash.Sum64()))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read faults: %w", err)
	}
	return s, nil
}

func parseRule(text string) (*rule, error) {
	parts := strings.Split(text, ":")
	r := &rule{action: actions[parts[0]]}
	wanted := 2
	if r.action == actionDelay {
		wanted = 3
	}
	if r.action == 0 || len(parts) != wanted {
		return nil, fmt.Errorf("%q: want error:P, panic:P, exit:P or delay:P:DURATION", text)
	}
	var err error
	if r.probability, err = strconv.ParseFloat(parts[1], 64); err != nil || !(r.probability >= 0 && r.probability <= 1) {
		return nil, fmt.Errorf("probability %q is not between 0 and 1", parts[1])
	}
	if r.action == actionDelay {
		if r.delay, err = time.ParseDuration(parts[2]); err != nil || r.delay < 0 || r.delay > maxDelay {
			return nil, fmt.Errorf("delay %q is not a duration up to %v", parts[2], maxDelay)
		}
	}
	return r, nil
}
