package node

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/store"
)

// canaries are values that must stay where they belong.
type canaries struct {
	secrets []string // nowhere in the clear
	payload string   // in the table events, and in the answer of GetPayload
}

// caller calls rpcs as anyone can with an HTTP client, and keeps what it is answered.
type caller struct {
	t       *testing.T
	url     string
	key     string
	answers *bytes.Buffer
}

func (c caller) call(rpc, request string) map[string]any {
	c.t.Helper()
	call, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.url+"/kapsel.v1."+rpc, strings.NewReader(request))
	if err != nil {
		c.t.Fatal(err)
	}
	call.Header.Set("Content-Type", "application/json")
	if c.key != "" {
		call.Header.Set("Authorization", "Bearer "+c.key)
	}
	response, err := http.DefaultClient.Do(call)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if !strings.HasSuffix(rpc, "/GetPayload") {
		fmt.Fprintf(c.answers, "%s %v %s\n", rpc, response.Header, body)
	}
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil {
		c.t.Fatalf("%s: %s", rpc, body)
	}
	return answer
}

func field(t *testing.T, answer map[string]any, path ...string) string {
	t.Helper()
	var value any = answer
	for _, name := range path {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	text, _ := value.(string)
	if text == "" {
		t.Fatalf("no %s in %v", strings.Join(path, "."), answer)
	}
	return text
}

// apiKey makes a key on the database, as the command line does, with the scopes.
func (r *rig) apiKey(n *Node, scopes ...string) (key tenant.Key, keyID string) {
	r.t.Helper()
	key = tenant.NewKey()
	params := store.CreateAPIKeyParams{TenantID: r.tenant, KeyID: id.New(), DisplayName: "test", Hint: key.Hint(), SecretHash: key.Hash(), Scopes: scopes}
	if err := n.DB().CreateAPIKey(r.t.Context(), n.DB().Engine(), params); err != nil {
		r.t.Fatal(err)
	}
	return key, id.APIKey.Text(params.KeyID)
}

// A run of everything, with debug logs, metrics and traces, on a real node: no secret and no payload may turn up where it does not belong.
func TestSecretsAndPayloadsStayWhereTheyBelong(t *testing.T) {
	mark := strings.ToLower(strings.ReplaceAll(id.New().String(), "-", ""))
	logged, collected := new(syncBuffer), newCollector(t)
	r, n := one(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
		withAdmin(c)
		c.Tracer = collected.tracer(t, "1")
	})
	admin, _ := r.apiKey(n, "ingest", "read", "manage", "admin")
	spare, spareID := r.apiKey(n, "read")
	endpointSecret := "endpoint-" + mark
	refused := "whsec_refused-" + mark // not the base64 that it should be
	signingSecret := "whsec_" + base64.StdEncoding.EncodeToString([]byte("destination-"+mark))
	c := canaries{payload: "payload-" + mark, secrets: []string{
		admin.Text()[len(admin.Hint()):], spare.Text()[len(spare.Hint()):], endpointSecret, signingSecret[len("whsec_"):], "destination-" + mark, "refused-" + mark,
	}}
	client := caller{t, n.URL(), admin.Text(), new(bytes.Buffer)}

	endpoint := client.call("EndpointService/CreateEndpoint", fmt.Sprintf(`{"endpoint":{"verification":{"preset":"github"},"payloadFormat":"PAYLOAD_FORMAT_JSON"},"secrets":[%q]}`, endpointSecret))
	endpointID := field(t, endpoint, "endpoint", "id")
	destination := client.call("DestinationService/CreateDestination", fmt.Sprintf(`{"destination":{"endpointId":%q,"url":%q},"secret":%q}`, endpointID, r.sink.URL, signingSecret))
	destinationID := field(t, destination, "destination", "id")
	inURL := "url-" + mark // a path that only its owner knows is a credential
	failing := client.call("DestinationService/CreateDestination", fmt.Sprintf(`{"destination":{"endpointId":%q,"url":"http://127.0.0.1:1/%s","retryPolicy":{"maxAttempts":1}},"secret":%q}`, endpointID, inURL, signingSecret))
	outbound := newGuarded(t, mark)
	c.secrets = append(c.secrets, outbound.canaries()...)
	for path, secret := range map[string]string{"/in": outbound.secret, "/refuses": outbound.secret, "/token-refused": "wrong-" + outbound.secret} {
		field(t, client.call("DestinationService/CreateDestination", outbound.destination(endpointID, path, secret)), "destination", "id")
	}
	// What is refused is not repeated.
	client.call("DestinationService/CreateDestination", strings.Replace(outbound.destination(endpointID, "/in", outbound.secret), "X-Api-Key", "Host", 1))
	client.call("DestinationService/CreateDestination", strings.Replace(outbound.destination(endpointID, "/in", outbound.secret), outbound.header, outbound.header+"\\n", 1))
	client.call("DestinationService/CreateDestination", strings.Replace(outbound.destination(endpointID, "/in", outbound.secret), "https://", "http://", 1))
	client.call("DestinationService/CreateDestination", strings.Replace(outbound.destination(endpointID, "/in", outbound.secret), "EC PRIVATE", "PUBLIC", 2))
	client.call("DestinationService/RotateDestinationSecret", fmt.Sprintf(`{"destinationId":%q,"secret":%q}`, destinationID, refused))
	client.call("DestinationService/RotateDestinationSecret", fmt.Sprintf(`{"destinationId":%q,"secret":%q}`, destinationID, signingSecret)) // in use already
	client.call("EndpointService/RotateEndpointSecret", fmt.Sprintf(`{"endpointId":%q,"secret":%q}`, endpointID, endpointSecret))

	post := func(body, secret string) string {
		t.Helper()
		header, err := signature.Sign(signature.Config{Preset: "github"}, []byte(secret), []byte(body), time.Now(), id.New().String())
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.URL()+"/ingest/"+endpointID, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header = header
		request.Header.Set("X-Canary", c.payload)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		answer, _ := io.ReadAll(response.Body)
		fmt.Fprintf(client.answers, "ingest %v %s\n", response.Header, answer)
		var receipt struct {
			EventID string `json:"event_id"`
		}
		json.Unmarshal(answer, &receipt)
		return receipt.EventID
	}
	body := fmt.Sprintf(`{"text":%q}`, c.payload)
	event := post(body, endpointSecret)
	if event == "" {
		t.Fatalf("the webhook was not taken: %s", client.answers)
	}
	post(body, "wrong")
	post(`{"broken":"`+c.payload, endpointSecret)
	eventually(t, "deliveries and dead letters", func() bool { // of the broken webhook, and of three destinations that refuse
		return r.count("select count(*) from dead_letters") >= 4 && r.count("select count(*) from attempts where outcome = 1") >= 2
	})
	if outbound.taken.Load() == 0 {
		t.Error("the destination that asks for everything took nothing")
	}
	client.call("DestinationService/SendTest", fmt.Sprintf(`{"destinationId":%q,"payload":%q}`, destinationID, base64.StdEncoding.EncodeToString([]byte(body))))
	client.call("EventService/GetPayload", fmt.Sprintf(`{"eventId":%q}`, event))
	for rpc, request := range map[string]string{
		"EventService/ReplayEvent": fmt.Sprintf(`{"eventId":%q,"destinationIds":[%q]}`, event, field(t, failing, "destination", "id")), "EventService/ListEvents": "{}",
		"DeliveryService/ListDeliveries": "{}", "DeliveryService/ListAttempts": fmt.Sprintf(`{"eventId":%q}`, event), "DeliveryService/ListDeadLetters": "{}",
		"TenantService/ListApiKeys": "{}", "TenantService/ListAuditEntries": "{}", "TenantService/GetTenant": "{}", "EndpointService/ListEndpoints": "{}",
		"DestinationService/ListDestinations": "{}", "TenantService/RevokeApiKey": fmt.Sprintf(`{"apiKeyId":%q}`, spareID), "EndpointService/GetEndpoint": `{"endpointId":"` + endpointSecret + `"}`,
	} {
		client.call(rpc, request)
	}
	caller{t, n.URL(), spare.Text(), client.answers}.call("EndpointService/ListEndpoints", "{}")
	caller{t, n.URL(), admin.Text() + "x", client.answers}.call("EndpointService/ListEndpoints", "{}")
	get := func(url string) string {
		t.Helper()
		response, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		answer, _ := io.ReadAll(response.Body)
		return fmt.Sprintf("%v %s", response.Header, answer)
	}
	for _, path := range []string{"/metrics", "/log/1/checkpoint", "/readyz", "/ingest/" + endpointID + "?token=" + refused} {
		fmt.Fprintln(client.answers, get(n.URL()+path))
	}
	metrics := get(n.AdminURL() + "/metrics")
	if !strings.Contains(metrics, "kapsel_ingest_requests_total") {
		t.Errorf("the metrics are %s", metrics)
	}
	dump := r.dump()
	r.stop(n)

	if !found(dump["events"], c.payload) {
		t.Error("the search does not find the payload where it is: in the table events")
	}
	delete(dump, "events")
	eventually(t, "spans of deliveries are exported", func() bool { return strings.Contains(collected.text(), "kapsel.delivery_id") })
	places := map[string]string{"the log": logged.String(), "the traces": collected.text(), "an answer": client.answers.String(), "the metrics": metrics, "pg_dump": r.pgDump()}
	for table, rows := range dump {
		places["the table "+table] = rows
	}
	for place, text := range places {
		for _, value := range append(c.secrets, c.payload) {
			if found(text, value) {
				t.Errorf("%s holds %q in the clear: …%s…", place, value, around(text, value))
			}
		}
	}
	for _, place := range []string{"the log", "the traces", "the metrics"} {
		if found(places[place], inURL) {
			t.Errorf("%s holds a destination's URL: …%s…", place, around(places[place], inURL))
		}
	}
	if len(dump) < 20 || logged.Len() < 1000 {
		t.Errorf("only %d tables and %d bytes of logs were searched", len(dump), logged.Len())
	}
}

// found reports whether text holds value as it is, or as PostgreSQL prints bytea, or in base64, alone or in the middle of more.
func found(text, value string) bool {
	if strings.Contains(text, value) || strings.Contains(text, hex.EncodeToString([]byte(value))) {
		return true
	}
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), value...))
		// Without the characters that hold bits of what stands before and after.
		if strings.Contains(text, encoded[(before*8+5)/6:(before+len(value))*8/6]) {
			return true
		}
	}
	return false
}

func around(text, value string) string {
	at := max(strings.Index(text, value), 0)
	return text[max(0, at-200):min(len(text), at+200)]
}

// pgDump is the database as pg_dump writes it, schema and all, without the rows of events; "" without the program.
func (r *rig) pgDump() string {
	r.t.Helper()
	program, err := exec.LookPath("pg_dump")
	if err != nil {
		r.t.Log("no pg_dump (install postgresql-client): only tables were searched, by COPY")
		return ""
	}
	dump, err := exec.CommandContext(r.t.Context(), program, "--dbname", r.url, "--exclude-table-data", "events*").Output()
	if err != nil || !bytes.Contains(dump, []byte("COPY public.destination_credentials")) {
		r.t.Fatalf("pg_dump: %v, %d bytes", err, len(dump))
	}
	return string(dump)
}

// dump is what COPY gives of each table, by its name.
func (r *rig) dump() map[string]string {
	r.t.Helper()
	rows, _ := r.owner.Query(r.t.Context(), `select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition`)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		r.t.Fatal(err)
	}
	conn, err := r.owner.Acquire(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Release()
	dump := make(map[string]string)
	for _, table := range tables {
		var text bytes.Buffer
		if _, err := conn.Conn().PgConn().CopyTo(r.t.Context(), &text, "copy (select * from "+pgx.Identifier{table}.Sanitize()+") to stdout"); err != nil {
			r.t.Fatal(err)
		}
		dump[table] = text.String()
	}
	return dump
}

// A key that is revoked through one node ends on the other, long before what that one remembers runs out.
func TestKeyRevokedOnOneNodeEndsOnAllWithinTwoSeconds(t *testing.T) {
	r, a := one(t, nil)
	b := r.start(r.config())
	admin, _ := r.apiKey(a, "admin")
	key, keyID := r.apiKey(a, "read")
	onA, onB := caller{t, a.URL(), admin.Text(), new(bytes.Buffer)}, caller{t, b.URL(), key.Text(), new(bytes.Buffer)}
	if answer := onB.call("EndpointService/ListEndpoints", "{}"); answer["code"] != nil {
		t.Fatalf("before: %v", answer)
	}
	onA.call("TenantService/RevokeApiKey", fmt.Sprintf(`{"apiKeyId":%q}`, keyID))
	revoked := time.Now()
	for {
		if answer := onB.call("EndpointService/ListEndpoints", "{}"); answer["code"] == "unauthenticated" {
			break
		}
		if took := time.Since(revoked); took > 2*time.Second {
			t.Fatalf("%v after it was revoked, the key works on the other node", took)
		}
	}
	t.Logf("in force on the other node after %v", time.Since(revoked))

	// The use of keys is written down, at the latest when a node stops.
	r.stop(b)
	if n := r.count("select count(*) from api_keys where last_used_at is not null"); n != 1 {
		t.Errorf("%d keys have a time of last use, want that of the one that was used on the node that stopped", n)
	}
}

// syncBuffer is a log that is read when its writers may still write.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}
