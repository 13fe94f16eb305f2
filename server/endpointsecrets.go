package server

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/store"
)

func (s *endpointService) RotateEndpointSecret(ctx context.Context, request *kapselv1.RotateEndpointSecretRequest) (*kapselv1.RotateEndpointSecretResponse, error) {
	response := new(kapselv1.RotateEndpointSecretResponse)
	err := s.change(ctx, request.EndpointId, func(tx pgx.Tx, present store.Endpoint) error {
		described, err := describeEndpoint(present, s.PublicURL)
		if err != nil {
			return err
		}
		settings, err := readEndpoint(described)
		if err != nil {
			return err
		}
		if !takesSecrets(described.Verification) {
			return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "secret",
				"the preset %q takes no secret: choose another preset with UpdateEndpoint first", described.Verification.Preset)
		}
		var given []string
		if request.Secret != "" {
			given = []string{request.Secret}
		}
		chosen, generated, err := settings.chooseSecrets(given)
		if err != nil {
			return inField(err, "secret")
		}
		values, err := s.secretValues(ctx, tx, present)
		if err != nil {
			return err
		}
		lasts := overlap(request.Overlap)
		if err := checkRotation(values, chosen[0], lasts); err != nil {
			return err
		}
		if err := s.endSecrets(ctx, tx, present, lasts.Seconds()); err != nil {
			return err
		}
		if err := s.addEndpointSecret(ctx, tx, present.TenantID, present.EndpointID, chosen[0]); err != nil {
			return err
		}
		touched, err := s.DB.TouchEndpoint(ctx, tx, present.TenantID, present.EndpointID)
		if err != nil {
			return err
		}
		response.Secret = generated
		if response.Endpoint, err = s.describeOne(ctx, tx, touched); err != nil {
			return err
		}
		return s.audit(ctx, tx, present.TenantID, response.Endpoint.Id, rotated(lasts))
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// rotated is what an audit log says of a rotation.
func rotated(overlap time.Duration) string {
	return "the secrets before it are valid for another " + overlap.String()
}

// changeVerification keeps an endpoint's secrets in step with its verification. A preset without secrets ends those that
// there are. One that needs a secret where there was none gets one that nobody knows: the endpoint refuses all webhooks
// until RotateEndpointSecret gives it the provider's, rather than let any pass unverified. Otherwise the present secrets
// must have the form that the new preset asks for.
func (s *endpointService) changeVerification(ctx context.Context, tx pgx.Tx, row store.Endpoint, before *kapselv1.Endpoint, after endpointSettings) error {
	if proto.Equal(before.Verification, after.Verification) {
		return nil
	}
	if !takesSecrets(after.Verification) {
		return s.endSecrets(ctx, tx, row, 0)
	}
	values, err := s.secretValues(ctx, tx, row)
	if err != nil {
		return err
	}
	if len(values) > 0 {
		present := make([]string, len(values))
		for i, value := range values {
			present[i] = string(value)
		}
		if _, _, err := after.chooseSecrets(present); err != nil {
			return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "endpoint.verification.preset",
				"the endpoint's present secrets have not the form that preset %q asks for: rotate to one that fits both, or make a new endpoint", after.Verification.Preset)
		}
		return nil
	}
	chosen, _, err := after.chooseSecrets(nil)
	if err != nil { // the provider chooses it; until then any will do
		chosen, _, err = after.chooseSecrets([]string{signature.NewSecret()})
	}
	if err != nil {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "endpoint.verification.preset",
			"preset %q needs a key that only its provider has: make a new endpoint with it", after.Verification.Preset)
	}
	return s.addEndpointSecret(ctx, tx, row.TenantID, row.EndpointID, chosen[0])
}

// takesSecrets reports whether the source of an endpoint with this verification signs.
func takesSecrets(v *kapselv1.Verification) bool {
	preset, found := signature.Lookup(v.GetPreset())
	return found && preset.Algorithm != signature.AlgorithmNone
}

// endSecrets has the present secrets end after the overlap, and removes those that have ended.
func (s *endpointService) endSecrets(ctx context.Context, tx pgx.Tx, e store.Endpoint, overlapSeconds float64) error {
	if err := s.DB.EndEndpointSecrets(ctx, tx, overlapSeconds, e.TenantID, e.EndpointID); err != nil {
		return err
	}
	return s.DB.RemoveEndedEndpointSecrets(ctx, tx, e.TenantID, e.EndpointID)
}

func (s *endpointService) addEndpointSecret(ctx context.Context, tx pgx.Tx, tenantID, endpointID uuid.UUID, value string) error {
	sealed, err := s.seal(tenantID, value, route.EndpointSecretPurpose)
	if err != nil {
		return err
	}
	return s.DB.CreateEndpointSecret(ctx, tx, store.CreateEndpointSecretParams{
		TenantID: tenantID, EndpointID: endpointID, SecretID: sealed.id, Ciphertext: sealed.ciphertext,
	})
}

// secretValues are the secrets that are valid now.
func (s *endpointService) secretValues(ctx context.Context, tx pgx.Tx, e store.Endpoint) ([][]byte, error) {
	rows, err := s.DB.EndpointSecretValues(ctx, tx, e.TenantID, e.EndpointID)
	if err != nil {
		return nil, err
	}
	sealed := make([]sealedSecret, len(rows))
	for i, row := range rows {
		sealed[i] = sealedSecret{row.SecretID, row.Ciphertext}
	}
	return s.unseal(e.TenantID, sealed, route.EndpointSecretPurpose), nil
}

// inField names another field of the request in a refusal of one.
func inField(err error, field string) error {
	var refused *refusal
	if errors.As(err, &refused) {
		for _, violation := range refused.fields {
			violation.Field = field
		}
	}
	return err
}
