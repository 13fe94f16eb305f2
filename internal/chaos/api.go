package chaos

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"testing"
	"time"
)

// API calls a server as anybody could: Connect's unary protocol, JSON over HTTP POST.
type API struct {
	URL string
	Key string
}

// Call calls an rpc, such as "EventService/GetEvent", and decodes its answer into response unless that is nil.
func (a API) Call(t testing.TB, rpc string, request, response any) {
	t.Helper()
	status, body := a.TryCall(t, rpc, request)
	if status != http.StatusOK {
		t.Fatalf("%s: HTTP status %d: %s", rpc, status, body)
	}
	if response == nil {
		return
	}
	if err := json.Unmarshal(body, response); err != nil {
		t.Fatalf("%s: decode %s: %v", rpc, body, err)
	}
}

// TryCall calls an rpc and returns whatever it answers.
func (a API) TryCall(t testing.TB, rpc string, request any) (status int, body []byte) {
	t.Helper()
	encoded, err := json.Marshal(request)
	if err != nil {
		t.Fatalf("%s: encode request: %v", rpc, err)
	}
	r, err := http.NewRequest(http.MethodPost, a.URL+"/kapsel.v1."+rpc, bytes.NewReader(encoded))
	if err != nil {
		t.Fatalf("%s: %v", rpc, err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+a.Key)
	answer, err := (&http.Client{Timeout: 30 * time.Second}).Do(r)
	if err != nil {
		t.Fatalf("%s: %v", rpc, err)
	}
	defer answer.Body.Close()
	if body, err = io.ReadAll(answer.Body); err != nil {
		t.Fatalf("%s: read answer: %v", rpc, err)
	}
	return answer.StatusCode, body
}

type object = map[string]any

// Route is an endpoint with one destination.
type Route struct {
	EndpointID        string
	Secret            string // of the endpoint: what sources sign with
	DestinationID     string
	DestinationSecret string // what the destination verifies with
}

// CreateRoute makes an endpoint with the GitHub preset whose webhooks go to url, all headers included.
func (a API) CreateRoute(t testing.TB, url string) Route {
	t.Helper()
	return a.CreateRouteWith(t, url, nil)
}

// CreateRouteWith is CreateRoute with more settings of the destination.
func (a API) CreateRouteWith(t testing.TB, url string, settings object) Route {
	t.Helper()
	route := Route{Secret: "it is a secret to everybody"}
	var endpoint struct {
		Endpoint struct{ ID string }
	}
	a.Call(t, "EndpointService/CreateEndpoint", object{
		"endpoint": object{"displayName": "chaos", "verification": object{"preset": "github"}, "payloadFormat": "PAYLOAD_FORMAT_JSON"},
		"secrets":  []string{route.Secret},
	}, &endpoint)
	var destination struct {
		Destination struct{ ID string }
		Secret      string
	}
	wanted := object{"displayName": "sink", "endpointId": endpoint.Endpoint.ID, "url": url, "forwardedHeaders": []string{"*"}}
	maps.Copy(wanted, settings)
	a.Call(t, "DestinationService/CreateDestination", object{"destination": wanted}, &destination)
	route.EndpointID, route.DestinationID, route.DestinationSecret = endpoint.Endpoint.ID, destination.Destination.ID, destination.Secret
	return route
}

// AwaitAnswer waits until url answers 200.
func AwaitAnswer(t testing.TB, p *Process, url string, patience time.Duration) {
	t.Helper()
	client := &http.Client{Timeout: time.Second}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		answer, err := client.Get(url)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		if p.Ended() {
			t.Fatalf("the process has ended instead of answering at %s:\n%s", url, p.stderr.text())
		}
		if time.Since(began) > patience {
			t.Fatalf("%s does not answer 200 after %v", url, patience)
		}
	}
}
