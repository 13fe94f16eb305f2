package store

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// IsRowError reports whether the database refused the data, so that the same statement cannot succeed later: SQLSTATE
// classes 22 (data exception) and 23 (integrity constraint violation).
func IsRowError(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && (pgErr.Code[:2] == "22" || pgErr.Code[:2] == "23")
}

// isLockTimeout reports whether a lock was waited for in vain: SQLSTATE 55P03 (lock not available).
func isLockTimeout(err error) bool { return isSQLState(err, "55P03") }

// IsRepeatError reports whether a row is there already: SQLSTATE 23505 (unique violation).
func IsRepeatError(err error) bool { return isSQLState(err, "23505") }

// IsReferenceError reports whether a row names one that is not there: SQLSTATE 23503 (foreign key violation).
func IsReferenceError(err error) bool { return isSQLState(err, "23503") }

func isSQLState(err error, code string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == code
}
