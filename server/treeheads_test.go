package server

import (
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

func TestTreeHeadsAreListedInPages(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	for _, n := range []int{2, 4, 8} {
		r.sealedLog(a, n)
	}
	r.exec("insert into cosignatures (log_id, tree_size, key_name, line) select 1, max(tree_size), 'witness.example.com', '— witness.example.com 3q2+7w==' from tree_heads")
	anyone := r.account(id.New(), "").attestation
	all := must(anyone.ListTreeHeads(t.Context(), &kapselv1.ListTreeHeadsRequest{PageSize: 1000}))(t)
	if len(all.TreeHeads) < 3 || all.NextPageToken != "" {
		t.Fatalf("%d heads, token %q", len(all.TreeHeads), all.NextPageToken)
	}
	if c := all.TreeHeads[0].Cosignatures; len(c) != 1 || c[0].KeyName != "witness.example.com" || len(all.TreeHeads[1].Cosignatures) != 0 {
		t.Errorf("cosignatures %v, %v: want one, of the latest head", c, all.TreeHeads[1].Cosignatures)
	}
	request := &kapselv1.ListTreeHeadsRequest{LogId: "1", PageSize: 2}
	for i := 0; i < len(all.TreeHeads); {
		page := must(anyone.ListTreeHeads(t.Context(), request))(t)
		for _, head := range page.TreeHeads {
			if !proto.Equal(head, all.TreeHeads[i]) {
				t.Errorf("head %d: got %v, want %v", i, head, all.TreeHeads[i])
			}
			i++
		}
		if (page.NextPageToken == "") != (i == len(all.TreeHeads)) || len(page.TreeHeads) == 0 {
			t.Fatalf("after %d of %d heads the token is %q", i, len(all.TreeHeads), page.NextPageToken)
		}
		request.PageToken = page.NextPageToken
	}
	_, err := anyone.ListTreeHeads(t.Context(), &kapselv1.ListTreeHeadsRequest{LogId: "2"})
	wantReason(t, err, connect.CodeNotFound, "LOG_NOT_FOUND")
	for _, token := range []string{"x", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"} {
		_, err = anyone.ListTreeHeads(t.Context(), &kapselv1.ListTreeHeadsRequest{PageToken: token})
		wantReason(t, err, connect.CodeInvalidArgument, "INVALID_TOKEN")
	}
}

func TestOnlyOperatorsSealTheLog(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	r.sealedLog(a, 2)
	_, err := a.attestation.SealLog(t.Context(), &kapselv1.SealLogRequest{})
	wantReason(t, err, connect.CodePermissionDenied, "SCOPE_MISSING")
	_, err = r.account(id.New(), "").attestation.SealLog(t.Context(), &kapselv1.SealLogRequest{})
	wantReason(t, err, connect.CodeUnauthenticated, "API_KEY_MISSING")

	operator := r.operator().attestation
	got := must(operator.SealLog(t.Context(), &kapselv1.SealLogRequest{}))(t).TreeHead
	log := must(r.deps.DB.LogProgress(t.Context(), r.db.Engine(), testLogID))(t)
	if got.TreeSize < log.NextIndex || got.Note == "" {
		t.Errorf("got %v, want a head over %d leaves", got, log.NextIndex)
	}
	_, err = operator.SealLog(t.Context(), &kapselv1.SealLogRequest{LogId: "2"})
	wantReason(t, err, connect.CodeNotFound, "LOG_NOT_FOUND")
}
