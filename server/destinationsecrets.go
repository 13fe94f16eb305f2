package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// defaultOverlap is for how long the secrets before a rotation stay in use.
	defaultOverlap = 24 * time.Hour
	// maxSecretsAtOnce of an endpoint or destination: what package signature takes, and a signature each.
	maxSecretsAtOnce = 8
)

func (s *destinationService) RotateDestinationSecret(ctx context.Context, request *kapselv1.RotateDestinationSecretRequest) (*kapselv1.RotateDestinationSecretResponse, error) {
	response := new(kapselv1.RotateDestinationSecretResponse)
	err := s.change(ctx, request.DestinationId, func(tx pgx.Tx, present store.Destination) error {
		described, err := describeDestination(present)
		if err != nil {
			return err
		}
		value, generated, err := destinationSettings{Destination: described}.chooseSecret(request.Secret)
		if err != nil {
			return err
		}
		if err := s.replaceSecrets(ctx, tx, present, value, overlap(request.Overlap)); err != nil {
			return err
		}
		touched, err := s.DB.TouchDestination(ctx, tx, present.TenantID, present.DestinationID)
		if err != nil {
			return err
		}
		response.Secret = generated
		if response.Destination, err = s.describeOne(ctx, tx, touched); err != nil {
			return err
		}
		return s.audit(ctx, tx, present.TenantID, response.Destination.Id, rotated(overlap(request.Overlap)))
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func overlap(given *durationpb.Duration) time.Duration {
	if given == nil {
		return defaultOverlap
	}
	return given.AsDuration()
}

// replaceSecrets adds a secret and has the present ones end after the overlap.
func (s *destinationService) replaceSecrets(ctx context.Context, tx pgx.Tx, d store.Destination, value string, overlap time.Duration) error {
	rows, err := s.DB.DestinationSecrets(ctx, tx, d.TenantID, []uuid.UUID{d.DestinationID})
	if err != nil {
		return err
	}
	present := make([]sealedSecret, len(rows))
	for i, row := range rows {
		present[i] = sealedSecret{row.SecretID, row.Ciphertext}
	}
	values := s.unseal(d.TenantID, present, route.DestinationSecretPurpose)
	if err := checkRotation(values, value, overlap); err != nil {
		return err
	}
	if err := s.DB.EndDestinationSecrets(ctx, tx, overlap.Seconds(), d.TenantID, d.DestinationID); err != nil {
		return err
	}
	if err := s.DB.RemoveEndedDestinationSecrets(ctx, tx, d.TenantID, d.DestinationID); err != nil {
		return err
	}
	return s.addDestinationSecret(ctx, tx, d.TenantID, d.DestinationID, value)
}

func (s *destinationService) addDestinationSecret(ctx context.Context, tx pgx.Tx, tenantID, destinationID uuid.UUID, value string) error {
	sealed, err := s.seal(tenantID, value, route.DestinationSecretPurpose)
	if err != nil {
		return err
	}
	return s.DB.CreateDestinationSecret(ctx, tx, store.CreateDestinationSecretParams{
		TenantID: tenantID, DestinationID: destinationID, SecretID: sealed.id, Ciphertext: sealed.ciphertext,
	})
}

// changeScheme sees to a secret of the new scheme when an update changes it. The present ones sign on for the overlap of a
// rotation, so that a receiver has time to change over.
func (s *destinationService) changeScheme(ctx context.Context, tx pgx.Tx, row store.Destination, before *kapselv1.Destination, after destinationSettings) error {
	if after.Signing.Scheme == before.Signing.Scheme {
		return nil
	}
	if after.Signing.Scheme != kapselv1.SigningScheme_SIGNING_SCHEME_V1A {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "destination.signing.scheme",
			"scheme V1 needs a secret that the receiver knows, and an update shows none: make a new destination for it")
	}
	value, _, err := after.chooseSecret("")
	if err != nil {
		return err
	}
	return s.replaceSecrets(ctx, tx, row, value, defaultOverlap)
}

// sealedSecret is a secret as its row has it.
type sealedSecret struct {
	id         uuid.UUID
	ciphertext []byte
}

// seal makes a new secret of a value.
func (a *api) seal(tenantID uuid.UUID, value, purpose string) (sealedSecret, error) {
	secretID := id.New()
	ciphertext, err := a.Keyring.Seal(secret.New([]byte(value)), secret.AssociatedData(tenantID, secretID, purpose))
	return sealedSecret{secretID, ciphertext}, err
}

// unseal opens secrets. One that does not open is left out: a rotation is how it is replaced.
func (a *api) unseal(tenantID uuid.UUID, sealed []sealedSecret, purpose string) [][]byte {
	var values [][]byte
	for _, s := range sealed {
		if value, err := a.Keyring.Unseal(s.ciphertext, secret.AssociatedData(tenantID, s.id, purpose)); err == nil {
			values = append(values, value.Reveal())
		}
	}
	return values
}

// checkRotation refuses a secret that is in use already, and more secrets than can be in use at once.
func checkRotation(present [][]byte, value string, overlap time.Duration) error {
	for _, p := range present {
		if bytes.Equal(p, []byte(value)) {
			return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "secret", "this secret is in use already: give a new one")
		}
	}
	if overlap > 0 && len(present) >= maxSecretsAtOnce {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "secret",
			"%d secrets are in use already: wait for an overlap to end, or rotate with an overlap of 0s", len(present))
	}
	return nil
}

// chooseSecret checks the given secret, or generates one. shown is what the caller is told: nothing of a private key,
// whose receivers take the public one.
func (d destinationSettings) chooseSecret(given string) (value, shown string, err error) {
	asymmetric := d.Signing.Scheme == kapselv1.SigningScheme_SIGNING_SCHEME_V1A
	want := signature.PrefixHMACSecret
	if asymmetric {
		want = signature.PrefixPrivateKey
	}
	if given == "" {
		if asymmetric {
			private, _ := signature.NewKeyPair()
			return private, "", nil
		}
		generated := signature.NewSecret()
		return generated, generated, nil
	}
	if !strings.HasPrefix(given, want) {
		return "", "", refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "secret", "a secret of this signing scheme begins with %s", want)
	}
	if _, err := signature.NewSigner([][]byte{[]byte(given)}); err != nil {
		return "", "", refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "secret", "%v", err)
	}
	if raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(given, want)); !asymmetric && (len(raw) < 24 || len(raw) > 64) {
		return "", "", refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "secret", "the secret has %d bytes: want 24 to 64", len(raw))
	}
	return given, "", nil
}
