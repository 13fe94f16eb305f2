package server

import (
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/store"
)

// describeLimits is what a tenant may use. NULL in its row is 0 in the contract: no limit.
func describeLimits(row store.Tenant) *kapselv1.TenantLimits {
	return &kapselv1.TenantLimits{
		IngestPerSecond: limitOf(row.IngestPerSecond), IngestBurst: limitOf(row.IngestBurst),
		IngestPerDay: limitOf(row.IngestPerDay), IngestBytesPerDay: limitOf(row.IngestBytesPerDay),
		MaxBodyBytes: limitOf(row.MaxBodyBytes),
		MaxEndpoints: limitOf(row.MaxEndpoints), MaxDestinations: limitOf(row.MaxDestinations),
		PayloadRetention: describeRetention(row.PayloadRetentionSeconds),
	}
}

func describeRetention(seconds *int32) *durationpb.Duration {
	if seconds == nil {
		return nil
	}
	return &durationpb.Duration{Seconds: int64(*seconds)}
}

// setLimits fills in what a tenant's row is to hold of its limits.
func setLimits(row *store.UpdateTenantParams, limits *kapselv1.TenantLimits) {
	row.IngestPerSecond, row.IngestBurst = columnOf(limits.GetIngestPerSecond()), columnOf(limits.GetIngestBurst())
	row.IngestPerDay, row.IngestBytesPerDay = columnOf(limits.GetIngestPerDay()), columnOf(limits.GetIngestBytesPerDay())
	row.MaxBodyBytes = columnOf(limits.GetMaxBodyBytes())
	row.MaxEndpoints, row.MaxDestinations = columnOf(limits.GetMaxEndpoints()), columnOf(limits.GetMaxDestinations())
	row.PayloadRetentionSeconds = columnOf(int32(limits.GetPayloadRetention().GetSeconds())) // within what the contract allows
}

func limitOf[N int32 | int64](column *N) N {
	if column == nil {
		return 0
	}
	return *column
}

func columnOf[N int32 | int64](limit N) *N {
	if limit == 0 {
		return nil
	}
	return &limit
}
