package server

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// A reader who trusts the log's first key finds its way to the second, by the document and by GetLog alike.
func TestKeysOfALogAreServedWithTheirHandOvers(t *testing.T) {
	r := newRig(t)
	next := must(tlog.OpenKeyFile(filepath.Join(t.TempDir(), "next.key")))(t)
	must(tlog.Rotate(t.Context(), r.db.Engine(), testLogID, testOrigin, tlog.NewKeys(r.key), next, time.Hour))(t)
	first, second := must(r.key.VerifierKey(testOrigin))(t), must(next.VerifierKey(testOrigin))(t)

	response := must(r.client.Get(r.url + "/.well-known/kapsel-log.json"))(t)
	defer response.Body.Close()
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "application/json" || response.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Fatalf("%d, %v", response.StatusCode, response.Header)
	}
	var document struct{ Logs []wellKnownLog }
	if err := json.Unmarshal(must(io.ReadAll(response.Body))(t), &document); err != nil || len(document.Logs) != 1 {
		t.Fatalf("%+v, %v", document, err)
	}
	log := document.Logs[0]
	if log.ID != "1" || log.Origin != testOrigin || log.URL != "https://kapsel.example.com/log/1" || len(log.Keys) != 2 {
		t.Fatalf("%+v", log)
	}
	newest, oldest := log.Keys[0], log.Keys[1]
	if newest.VerifierKey != second || newest.RetireTime != nil || newest.Rotation == nil || oldest.VerifierKey != first || oldest.RetireTime == nil ||
		time.Until(*oldest.RetireTime) < 50*time.Minute || oldest.Rotation != nil {
		t.Errorf("%+v, %+v", newest, oldest)
	}
	leaf := must(hex.DecodeString(newest.Rotation.Leaf))(t)
	if followed := must(verify.FollowRotations([]string{first}, [][]byte{leaf}))(t); !slices.Equal(followed, []string{first, second}) {
		t.Errorf("followed to %v", followed)
	}

	served := must(r.account(id.New(), "").attestation.GetLog(t.Context(), &kapselv1.GetLogRequest{}))(t).Log
	if len(served.Keys) != 2 || served.Keys[0].VerifierKey != second || string(served.Keys[0].RotationLeaf) != string(leaf) ||
		served.Keys[0].RotationLeafIndex != newest.Rotation.LeafIndex || served.Keys[1].RetireTime == nil {
		t.Errorf("GetLog says %v", served)
	}
}
