package chaos

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/embedpg"
	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	startPatience = 30 * time.Second
	// Hold is the nodes' --hold: how long a webhook may wait for the database before its source is refused.
	Hold = 5 * time.Second
)

// Cluster is a durable PostgreSQL with a tenant, and the nodes on it.
type Cluster struct {
	Postgres *embedpg.Server
	APIKey   string

	databaseURL string
	address     string // of the database, to which each node has a link; empty: nodes use its socket
	flags       []string
	random      *Random
	state       string // parent of the nodes' state directories
}

// NewCluster starts a PostgreSQL, migrates it, and makes a tenant with an API key. Nodes are started by Start.
func NewCluster(t testing.TB, r *Random) *Cluster {
	t.Helper()
	c := startCluster(t, r)
	c.prepare(t)
	return c
}

// NewNetworkedCluster is NewCluster with a link between each node and the database. Nodes get the flags too.
func NewNetworkedCluster(t testing.TB, r *Random, flags ...string) *Cluster {
	t.Helper()
	c := &Cluster{address: FreeAddress(t, r), flags: flags, random: r, state: t.TempDir()}
	dir := makeDiskDirectory(t)
	host, port, err := net.SplitHostPort(c.address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startPatience)
	defer cancel()
	c.Postgres, err = embedpg.Start(ctx, embedpg.Config{
		DataDir: dir, Durable: true, Settings: map[string]string{"listen_addresses": host, "port": port},
	})
	if err != nil {
		t.Fatalf("start a durable PostgreSQL at %s: %v", c.address, err)
	}
	t.Cleanup(func() {
		if err := c.Postgres.Stop(context.Background()); err != nil {
			t.Errorf("stop PostgreSQL: %v", err)
		}
	})
	c.databaseURL = networkURL(c.address) // for the checks, which must not suffer
	c.prepare(t)
	return c
}

func networkURL(address string) string {
	return "postgres://postgres@" + address + "/postgres?sslmode=disable"
}

func startCluster(t testing.TB, r *Random) *Cluster {
	t.Helper()
	postgres := pgtest.Durable(t)
	return &Cluster{Postgres: postgres, databaseURL: postgres.ConnString("postgres"), random: r, state: t.TempDir()}
}

// prepare migrates the database and makes a tenant with an API key.
func (c *Cluster) prepare(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startPatience)
	defer cancel()
	if _, err := store.Migrate(ctx, c.DatabaseURL()); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	db, err := store.Open(ctx, c.DatabaseURL())
	if err != nil {
		t.Fatalf("open database: %v", err)
	}
	defer db.Close()
	tenantID, key := id.New(), tenant.NewKey()
	c.APIKey = key.Text()
	err = errors.Join(
		db.CreateTenant(ctx, db.Engine(), tenantID, "chaos"),
		db.CreateAPIKey(ctx, db.Engine(), store.CreateAPIKeyParams{
			TenantID: tenantID, KeyID: id.New(), DisplayName: "chaos", Hint: key.Hint(), SecretHash: key.Hash(),
			Scopes: []string{"ingest", "read", "manage", "admin"},
		}),
	)
	if err != nil {
		t.Fatalf("make a tenant: %v", err)
	}
}

// DatabaseURL is where the nodes and the checks connect to.
func (c *Cluster) DatabaseURL() string { return c.databaseURL }

// Node is `kapsel serve`, running.
type Node struct {
	*Process
	URL string
	// Database is its link to the database, in a networked cluster.
	Database *Link

	// Faults are injected from the next start on: a schedule as KAPSEL_FAULTS has it.
	Faults string

	cluster *Cluster
	args    []string
}

// Start runs a node with a state directory of that name and returns when it is ready. A node that is not the cluster's
// first gets copies of the first one's keys, as an operator would give it.
func (c *Cluster) Start(t testing.TB, name string) *Node {
	t.Helper()
	return c.start(t, name, keyFiles)
}

// StartAs is Start for a node that has some roles only. Without the role seal it gets no key of the log.
func (c *Cluster) StartAs(t testing.TB, name, roles string) *Node {
	t.Helper()
	files := keyFiles
	if !strings.Contains(roles, "seal") {
		files = keyFiles[1:]
	}
	return c.start(t, name, files, "--roles", roles)
}

func (c *Cluster) start(t testing.TB, name string, files []string, flags ...string) *Node {
	t.Helper()
	dir := filepath.Join(c.state, name)
	if err := c.shareFiles(dir, files); err != nil {
		t.Fatalf("prepare the state of node %s: %v", name, err)
	}
	address := FreeAddress(t, c.random)
	n := &Node{URL: "http://" + address, cluster: c}
	databaseURL := c.DatabaseURL()
	if c.address != "" {
		n.Database = NewLink(t, c.random, c.address)
		databaseURL = networkURL(n.Database.Address)
	}
	n.args = append([]string{
		"serve", "--database-url", databaseURL, "--listen", address, "--state-dir", dir,
		"--allow-destinations", "127.0.0.0/8", "--hold", Hold.String(), "--seal-age", "1s", "--breaker-pause", "1s",
	}, slices.Concat(c.flags, flags)...)
	n.Restart(t)
	return n
}

// Restart starts the program again, on the same address, database and state directory.
func (n *Node) Restart(t testing.TB) {
	t.Helper()
	n.Relaunch(t)
	AwaitAnswer(t, n.Process, n.URL+"/readyz", startPatience)
}

// Relaunch is Restart for nodes that may well die at once: it does not wait.
func (n *Node) Relaunch(t testing.TB) {
	t.Helper()
	var variables []string
	if n.Faults != "" {
		variables = []string{"KAPSEL_FAULTS=" + n.Faults}
	}
	n.Process = launch(t, variables, n.args...)
}

// inForcePatience is how long a change may take to be in force on every node: the API promises it.
const inForcePatience = 2 * time.Second

// CreateRoute is API.CreateRoute, and returns when the route is in force on every node. A webhook that comes to another
// node before that could meet the endpoint without its destination.
func (n *Node) CreateRoute(t testing.TB, url string) Route {
	t.Helper()
	route := n.API().CreateRoute(t, url)
	time.Sleep(inForcePatience)
	return route
}

// API is the node's, as the cluster's tenant.
func (n *Node) API() API { return API{URL: n.URL, Key: n.cluster.APIKey} }

// IngestURL is where sources post to.
func (n *Node) IngestURL(r Route) string { return n.URL + "/ingest/" + r.EndpointID }

// Log reads the log that this node serves, and trusts the key in the state directory.
func (n *Node) Log(t testing.TB) *LogClient {
	t.Helper()
	return newLogClient(t, n.URL+"/log/1", n.cluster.keyFile(t))
}

// keyFiles are what nodes of one service share, the log's key first, which only those that seal need.
var keyFiles = []string{"log.key", "secrets.keyset"}

func (c *Cluster) shareKeys(dir string) error { return c.shareFiles(dir, keyFiles) }

func (c *Cluster) shareFiles(dir string, files []string) error {
	others, err := filepath.Glob(filepath.Join(c.state, "*", keyFiles[0]))
	if err != nil || len(others) == 0 {
		return err
	}
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil // it has its own
	} else if err != nil {
		return err
	}
	for _, name := range files {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(others[0]), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) keyFile(t testing.TB) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(c.state, "*", keyFiles[0]))
	if err != nil || len(files) == 0 {
		t.Fatalf("no node has made a key (%v)", err)
	}
	return files[0]
}
