package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// exportPage is how many packages a message holds at most, as the contract says: half a megabyte or so.
	exportPage = 100
	// exportStretch bounds the leaves of others that one query passes over.
	exportStretch = 20_000
	// exportSlack is how far recorded_at may be from the time of the head that first covers a leaf.
	exportSlack = time.Hour
)

// export is where an ExportProofPackages stream is. A page is read, proved and sent before the next one is read: what a slow
// reader costs is one page.
type export struct {
	head      tlog.Head
	next, end int64 // leaf indexes: the next one to look at, and the one to stop before
	tag       [filterTagBytes]byte
}

// ExportProofPackages makes each package from its leaf and the tiles, all under the head that was the latest when the first
// stream began.
func (s *attestationService) ExportProofPackages(ctx context.Context, request *kapselv1.ExportProofPackagesRequest, stream kapselv1connect.AttestationServiceExportProofPackagesServerStream) error {
	from, before := firstTime, lastTime
	if t := request.GetRecorded().GetStartTime(); t != nil {
		from = clampTime(t)
	}
	if t := request.GetRecorded().GetEndTime(); t != nil {
		before = clampTime(t)
	}
	e, err := s.openExport(ctx, request, from, before)
	if err != nil {
		return err
	}
	wanted := wantedLeaves(request)
	for e.next < e.end {
		stop := min(e.end, e.next+exportStretch)
		leaves, err := s.exportLeaves(ctx, e.next, stop, from, before)
		if err != nil {
			return err
		}
		e.next = stop
		if len(leaves) == exportPage {
			e.next = leaves[exportPage-1].LeafIndex + 1
		}
		message := &kapselv1.ExportProofPackagesResponse{ResumeToken: e.token()}
		packager, err := s.Reader.Packager(ctx, e.head) // anew for each page: cosignatures come in behind a head
		if err != nil {
			return err
		}
		for _, row := range leaves {
			if !wanted(row.Leaf) {
				continue
			}
			document, err := packager.Package(ctx, row.LeafIndex, row.Leaf)
			if err != nil {
				return err
			}
			message.Packages = append(message.Packages, &kapselv1.ProofPackage{
				AttemptId: id.Attempt.Text(row.AttemptID), LeafIndex: row.LeafIndex, Json: document,
			})
		}
		if err := stream.Send(message); err != nil { // an empty one too: it moves the token on, and finds out who is gone
			return err
		}
	}
	return nil
}

// openExport begins an export, or goes on with the one that the token is of.
func (s *attestationService) openExport(ctx context.Context, request *kapselv1.ExportProofPackagesRequest, from, before time.Time) (e export, err error) {
	e.tag = filterTag(request)
	size := int64(-1)
	if request.ResumeToken != "" {
		if e.next, size, err = e.resume(request.ResumeToken); err != nil {
			return e, err
		}
		e.head, err = s.Reader.HeadAt(ctx, size)
		if errors.Is(err, tlog.ErrNotFound) {
			return e, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_TOKEN, "resume_token",
				"the head of the export's first part, of %d leaves, is not kept any more: start over without the token", size)
		}
	} else {
		e.head, err = s.Reader.Head(ctx)
		if errors.Is(err, tlog.ErrNotFound) {
			return e, nil // nothing is sealed
		}
	}
	if err != nil {
		return e, err
	}
	err = s.DB.AsTenant(ctx, caller(ctx).TenantID, func(tx pgx.Tx) error {
		span, err := s.DB.HeadsAround(ctx, tx, s.Reader.LogID(), from.Add(-exportSlack), before.Add(exportSlack))
		if err != nil {
			return err
		}
		if size < 0 {
			e.next = span.FirstIndex
		}
		e.end = min(span.EndIndex, e.head.Size)
		return nil
	})
	return e, err
}

func (s *attestationService) exportLeaves(ctx context.Context, first, end int64, from, before time.Time) (leaves []store.LeavesOfSpanRow, err error) {
	tenantID := caller(ctx).TenantID
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) (err error) {
		leaves, err = s.DB.LeavesOfSpan(ctx, tx, store.LeavesOfSpanParams{
			LogID: s.Reader.LogID(), TenantID: tenantID, FirstIndex: first, EndIndex: end,
			RecordedFrom: from, RecordedBefore: before, MaxRows: exportPage,
		})
		return err
	})
	return leaves, err
}

// wantedLeaves tells the leaves of the request's endpoint and destination. Which these are stands in the leaf alone.
func wantedLeaves(request *kapselv1.ExportProofPackagesRequest) func(leaf []byte) bool {
	endpointID, _ := id.Endpoint.Parse(request.EndpointId)
	destinationID, _ := id.Destination.Parse(request.DestinationId)
	return func(data []byte) bool {
		if request.EndpointId == "" && request.DestinationId == "" {
			return true
		}
		leaf := new(leafv1.Leaf)
		if proto.Unmarshal(data, leaf) != nil {
			return false
		}
		endpoint, destination := leaf.GetAttempt().GetEndpointId(), leaf.GetAttempt().GetDestinationId()
		if dead := leaf.GetDeadLetter(); dead != nil {
			endpoint, destination = dead.GetEndpointId(), dead.GetDestinationId()
		}
		return (request.EndpointId == "" || bytes.Equal(endpoint, endpointID[:])) &&
			(request.DestinationId == "" || bytes.Equal(destination, destinationID[:]))
	}
}

func (e *export) token() string {
	raw := binary.BigEndian.AppendUint64(nil, uint64(e.next))
	raw = binary.BigEndian.AppendUint64(raw, uint64(e.head.Size))
	return base64.RawURLEncoding.EncodeToString(append(raw, e.tag[:]...))
}

func (e *export) resume(token string) (next, size int64, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) != 16+filterTagBytes || !bytes.Equal(raw[16:], e.tag[:]) {
		return 0, 0, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_TOKEN, "resume_token",
			"resume_token is not one that an export gave out for the same request: start over without it")
	}
	next, size = int64(binary.BigEndian.Uint64(raw)), int64(binary.BigEndian.Uint64(raw[8:]))
	if next < 0 || size < 0 {
		return 0, 0, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_TOKEN, "resume_token", "resume_token is damaged: start over without it")
	}
	return next, size, nil
}
