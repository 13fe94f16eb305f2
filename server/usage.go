package server

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/limit"
	"github.com/kapsel-dev/kapsel/store"
)

// Days that GetUsage tells.
const (
	usualUsageDays = 30
	maxUsageDays   = 400
)

// GetUsage tells each day of the range, those on which nothing happened too.
func (s *tenantService) GetUsage(ctx context.Context, request *kapselv1.GetUsageRequest) (*kapselv1.GetUsageResponse, error) {
	first, last := usageDays(request.Range, limit.Day(time.Now()))
	response := new(kapselv1.GetUsageResponse)
	err := s.inTenant(ctx, request.TenantId, func(tx pgx.Tx, present store.Tenant) error {
		rows, err := s.DB.ListUsage(ctx, tx, present.TenantID, first, last)
		if err != nil {
			return fmt.Errorf("read usage: %w", err)
		}
		quota, err := s.DB.TenantQuota(ctx, tx, present.TenantID)
		if err != nil {
			return fmt.Errorf("count endpoints and destinations: %w", err)
		}
		response.Days = describeUsage(rows, first, last)
		response.Endpoints, response.Destinations = int32(quota.Endpoints), int32(quota.Destinations)
		response.Limits = describeLimits(present)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// usageDays are the first and the last day that a range touches, of those that are told: none, if the first is later.
func usageDays(span *kapselv1.TimeRange, today int32) (first, last int32) {
	first, last = today-usualUsageDays+1, today
	if span.GetStartTime() == nil && span.GetEndTime() == nil {
		return first, last
	}
	first = today - maxUsageDays + 1
	if end := span.GetEndTime(); end != nil {
		last = limit.Day(end.AsTime().Add(-time.Nanosecond)) // the end is not in it
	}
	if last >= today {
		last = today
	} else {
		first = last - maxUsageDays + 1
	}
	if start := span.GetStartTime(); start != nil {
		first = max(first, limit.Day(start.AsTime()))
	}
	return max(first, 0), last
}

// describeUsage makes an entry a day, the newest first, of rows in that order.
func describeUsage(rows []store.ListUsageRow, first, last int32) []*kapselv1.UsageDay {
	var days []*kapselv1.UsageDay
	for number := last; number >= first; number-- {
		day := &kapselv1.UsageDay{Day: &timestamppb.Timestamp{Seconds: int64(number) * limit.SecondsADay}}
		if len(rows) > 0 && rows[0].DayNumber == number {
			row := rows[0]
			rows = rows[1:]
			day.Events, day.Duplicates, day.Refused, day.PayloadBytes = row.Events, row.Duplicates, row.Refused, row.PayloadBytes
			day.Attempts, day.Delivered, day.DeadLettered = row.Attempts, row.Delivered, row.DeadLettered
		}
		days = append(days, day)
	}
	return days
}
