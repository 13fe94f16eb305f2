package server

import (
	"context"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

func (s *tenantService) ListAuditEntries(ctx context.Context, request *kapselv1.ListAuditEntriesRequest) (*kapselv1.ListAuditEntriesResponse, error) {
	page, err := readPage(request)
	if err != nil {
		return nil, err
	}
	params := store.ListAuditEntriesParams{
		ResourceID: request.ResourceId, CreatedFrom: firstTime, CreatedBefore: lastTime, BeforeID: lastID, MaxRows: page.size + 1,
	}
	if t := request.GetRange().GetStartTime(); t != nil {
		params.CreatedFrom = clampTime(t)
		params.FromID = id.Floor(params.CreatedFrom.Add(-idSlack))
	}
	if t := request.GetRange().GetEndTime(); t != nil {
		params.CreatedBefore = clampTime(t)
		params.BeforeID = id.Floor(params.CreatedBefore.Add(idSlack))
	}
	if page.before.String() < params.BeforeID.String() {
		params.BeforeID = page.before
	}
	response := new(kapselv1.ListAuditEntriesResponse)
	err = s.inTenant(ctx, request.TenantId, func(tx pgx.Tx, present store.Tenant) error {
		params.TenantID = present.TenantID
		rows, err := s.DB.ListAuditEntries(ctx, tx, params)
		if err != nil {
			return err
		}
		if len(rows) > int(page.size) {
			rows = rows[:page.size]
			response.NextPageToken = page.token(rows[len(rows)-1].EntryID)
		}
		for _, row := range rows {
			response.Entries = append(response.Entries, &kapselv1.AuditEntry{
				Id: id.AuditEntry.Text(row.EntryID), Time: timestamppb.New(row.CreatedAt), Actor: row.Actor, Action: row.Action,
				ResourceId: row.ResourceID, Detail: row.Detail, SourceAddress: row.SourceAddress,
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}
