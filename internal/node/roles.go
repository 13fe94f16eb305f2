package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// Role is a part of the work that a node takes. A service needs a node of each; the same node may have several, and by
// default it has all.
type Role string

const (
	// RoleIngest takes webhooks: /ingest and IngestService.
	RoleIngest Role = "ingest"
	// RoleAPI serves all other rpcs, and the public log.
	RoleAPI Role = "api"
	// RoleDeliver sends what is due. What a node without it takes in is born due for those that have it.
	RoleDeliver Role = "deliver"
	// RoleSeal signs tree heads, and does what is done once for all: partitions, retention, erasures, bulk replays. Only
	// its nodes need the log's key.
	RoleSeal Role = "seal"
)

// allRoles in the order of a webhook's way.
var allRoles = []Role{RoleIngest, RoleAPI, RoleDeliver, RoleSeal}

// ParseRoles reads a list of roles. None: all.
func ParseRoles(names []string) (roles []Role, err error) {
	for _, name := range names {
		role := Role(strings.TrimSpace(name))
		if !slices.Contains(allRoles, role) {
			return nil, fmt.Errorf("role %q: want some of ingest, api, deliver and seal", name)
		}
		if !slices.Contains(roles, role) {
			roles = append(roles, role)
		}
	}
	return roles, nil
}

// has reports whether the node takes this part of the work.
func (n *Node) has(role Role) bool { return slices.Contains(n.config.Roles, role) }

// addFor adds a component, if the node has the role that it is for.
func (n *Node) addFor(role Role, name string, run func(context.Context) error) {
	if n.has(role) {
		n.add(name, run)
	}
}

// ensureLog makes the log on the first start. A node that does not seal has no key to begin one with: it needs one that is there.
func (n *Node) ensureLog(ctx context.Context) error {
	if n.has(RoleSeal) {
		return tlog.EnsureLog(ctx, n.db.Engine(), logID, n.origin, n.logKeys.First())
	}
	if _, err := n.db.GetLog(ctx, n.db.Engine(), logID); errors.Is(err, pgx.ErrNoRows) {
		return errors.New("there is no log yet, and this node does not seal: start a node with the role seal first, which makes it")
	} else if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	return nil
}
