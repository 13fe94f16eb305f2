package server

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// callPacked sends a message that is compressed, and returns what is answered.
func (r *rig) callPacked(procedure, key, contentType string, message []byte) (status int, answer string) {
	r.t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write(message)
	w.Close()
	request := must(http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url+"/kapsel.v1."+procedure, &packed))(r.t)
	for name, value := range map[string]string{"Content-Type": contentType, "Content-Encoding": "gzip", "Authorization": "Bearer " + key} {
		request.Header.Set(name, value)
	}
	response := must(r.client.Do(request))(r.t)
	defer response.Body.Close()
	return response.StatusCode, string(must(io.ReadAll(response.Body))(r.t))
}

// An empty element takes two bytes on the wire, a few when compressed, and a hundred in memory before any rule is looked at.
func TestMessageOfTooManyPartsIsNotDecoded(t *testing.T) {
	r := newRig(t)
	a := r.tenant("ingest", "manage")
	const n = maxParts + 1
	for name, test := range map[string]struct {
		procedure, contentType string
		message                []byte
	}{
		"batch":          {"IngestService/IngestBatch", "application/proto", bytes.Repeat([]byte{0x0a, 0}, n)},
		"batch, JSON":    {"IngestService/IngestBatch", "application/json", []byte(`{"webhooks":[{}` + strings.Repeat(",{}", n/2) + `]}`)},
		"headers, JSON":  {"IngestService/Ingest", "application/json", []byte(`{"headers":[{}` + strings.Repeat(",{}", n/2) + `]}`)},
		"headers":        {"IngestService/Ingest", "application/proto", bytes.Repeat([]byte{0x12, 0}, n)},
		"field mask":     {"EndpointService/UpdateEndpoint", "application/json", []byte(`{"x":[0` + strings.Repeat(",0", n) + `]}`)},
		"texts of a key": {"EndpointService/CreateEndpoint", "application/proto", bytes.Repeat([]byte{0x12, 0}, n)}, // secrets
	} {
		status, answer := r.callPacked(test.procedure, a.key, test.contentType, test.message)
		if status != http.StatusBadRequest || !strings.Contains(answer, "parts") || !strings.Contains(answer, "INVALID_REQUEST") {
			t.Errorf("%s: %d %.200s", name, status, answer)
		}
	}
}

// Each violation takes much more than the element that it is of.
func TestLargeMessageHasItsFirstViolationNamed(t *testing.T) {
	r := newRig(t)
	a := r.tenant("ingest")
	for _, n := range []int{1001, 40_000} {
		status, answer := r.callPacked("IngestService/IngestBatch", a.key, "application/proto", bytes.Repeat([]byte{0x0a, 0}, n))
		named := strings.Count(answer, "description")
		if status != http.StatusBadRequest || n == 1001 && named != maxFieldViolations || n > 1001 && named != 1 {
			t.Errorf("%d webhooks: %d, %d violations: %.200s", n, status, named, answer)
		}
	}
}

func TestWhatABodyIsDecodedToIsCounted(t *testing.T) {
	r := newRig(t)
	a := r.tenant("ingest", "manage")
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	small := &memory{max: 1 << 20, callTimeout: callTimeout}
	server := NewHTTPServer(newHandler(r.deps, small), nil, slog.NewLogLogger(r.deps.Logger.Handler(), slog.LevelDebug))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(listener) }()
	defer func() { server.Close(); <-done }()
	narrow := *r
	narrow.url = "http://" + listener.Addr().String()
	for size, want := range map[int]int{100 << 10: http.StatusOK, 2 << 20: http.StatusServiceUnavailable} {
		message := must(proto.Marshal(&kapselv1.IngestRequest{EndpointId: e.Id, Payload: make([]byte, size)}))(t)
		status, answer := narrow.callPacked("IngestService/Ingest", a.key, "application/proto", message)
		if status != want || want != http.StatusOK && !strings.Contains(answer, "OVERLOADED") {
			t.Errorf("%d bytes: %d %.200s", size, status, answer)
		}
	}
	r.eventually(func() bool { return small.used.Load() == 0 }, func() string { return fmt.Sprintf("%d bytes are not given back", small.used.Load()) })
}

// The largest batch that the contract allows has fewer parts than a message may have, in either form.
func TestLargestBatchIsNotTooManyParts(t *testing.T) {
	webhook := &kapselv1.IngestRequest{EndpointId: "ep_01jzzzzzzzzzzzzzzzzzzzzzzz", Payload: []byte("{}")}
	for range maxWebhookHeaders {
		webhook.Headers = append(webhook.Headers, &kapselv1.Header{Name: `X-"{[,`, Value: `a,b,"c\`})
	}
	batch := &kapselv1.IngestBatchRequest{}
	for range 1000 {
		batch.Webhooks = append(batch.Webhooks, webhook)
	}
	wire, text := must(proto.Marshal(batch))(t), must(protojson.Marshal(batch))(t)
	if n, want := wireParts(wire, batch.ProtoReflect().Descriptor(), 0), 1000*(1+maxWebhookHeaders); n != want {
		t.Errorf("%d parts of the binary form, want %d", n, want)
	}
	// Three members, a list, and of each header two members: what begins, and what has a comma before it.
	if n, want := jsonParts(text), 1+1000*(1+3+3*maxWebhookHeaders); n != want || n > maxParts {
		t.Errorf("%d parts of the JSON form, want %d", n, want)
	}
}

// What was decoded has no more messages and elements than were counted before.
func FuzzPartsOfMessages(f *testing.F) {
	f.Add([]byte("\x0a\x00\x0a\x04\x12\x02\x0a\x00"), `{"webhooks":[{"headers":[{"name":"a\"{"},{}]},{}]}`)
	f.Add([]byte("\x0a\x02\x12\x00\x13\x14"), `{"webhooks":[{},{}], "x":{"y":[1,"\\"]}}`)
	f.Fuzz(func(t *testing.T, wire []byte, text string) {
		var batch kapselv1.IngestBatchRequest
		counted := wireParts(wire, batch.ProtoReflect().Descriptor(), 0)
		if proto.Unmarshal(wire, &batch) == nil && partsIn(&batch) > counted {
			t.Fatalf("%x: counted %d, decoded %d", wire, counted, partsIn(&batch))
		}
		counted = jsonParts([]byte(text))
		if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(text), &batch) == nil && partsIn(&batch) > counted {
			t.Fatalf("%q: counted %d, decoded %d", text, counted, partsIn(&batch))
		}
	})
}

func partsIn(batch *kapselv1.IngestBatchRequest) int {
	n := len(batch.Webhooks)
	for _, webhook := range batch.Webhooks {
		n += len(webhook.Headers)
	}
	return n
}
