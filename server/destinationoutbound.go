package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/store"
)

// nodeGone is after how long without a heartbeat a node is not asked about any more, some more than it takes to be dead.
const nodeGone = 10 * time.Second

// credentialChange is what becomes of a destination's credentials of one kind.
type credentialChange struct {
	kind   string
	value  string // the new one
	remove bool   // the present one
}

// takeCredentials checks client_tls and client_credentials, and takes the secrets out of d: what is left may be stored and
// shown. before is what the destination was, without secrets; nil: it is to be made.
func (s *destinationService) takeCredentials(d, before *kapselv1.Destination) (changes []credentialChange, err error) {
	if (d.ClientTls != nil || d.ClientCredentials != nil) && !strings.HasPrefix(strings.ToLower(d.Url), "https://") {
		return nil, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "destination.url",
			"client_tls and client_credentials need an https URL: nothing of them may be sent in the clear")
	}
	tlsChange, err := takeClientTLS(d.ClientTls, before.GetClientTls())
	if err != nil {
		return nil, err
	}
	secretChange, err := s.takeClientCredentials(d, before)
	if err != nil {
		return nil, err
	}
	for _, change := range []credentialChange{tlsChange, secretChange} {
		if change.value != "" || change.remove {
			changes = append(changes, change)
		}
	}
	return changes, nil
}

func takeClientTLS(d, before *kapselv1.ClientTls) (credentialChange, error) {
	change := credentialChange{kind: route.ClientKeyKind}
	if d == nil {
		change.remove = before.GetCertificateChain() != ""
		return change, nil
	}
	refused := func(text string) error {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "destination.client_tls", "%s", text)
	}
	change.value, d.PrivateKey, d.CertificateExpireTime = d.PrivateKey, "", nil
	keeps := change.value == "" && d.CertificateChain == before.GetCertificateChain()
	switch {
	case d.CertificateChain == "":
		change.remove = before.GetCertificateChain() != ""
	case keeps:
	case change.value == "":
		return change, refused("a certificate_chain needs its private_key")
	}
	chain := []byte(d.CertificateChain)
	if keeps { // the chain was checked with its key when it was set
		chain = nil
	}
	_, notAfter, err := route.NewClientTLS(chain, []byte(change.value), []byte(d.TrustedAuthorities))
	if err != nil {
		return change, refused(err.Error())
	}
	if len(chain) > 0 && time.Now().After(notAfter) {
		return change, refused(fmt.Sprintf("the client certificate has ended at %s", notAfter.UTC().Format(time.RFC3339)))
	}
	return change, nil
}

func (s *destinationService) takeClientCredentials(d, before *kapselv1.Destination) (credentialChange, error) {
	change := credentialChange{kind: route.ClientSecretKind}
	c, was := d.ClientCredentials, before.GetClientCredentials()
	if c == nil {
		change.remove = was != nil
		return change, nil
	}
	change.value, c.ClientSecret = c.ClientSecret, ""
	if before == nil || c.TokenUrl != was.GetTokenUrl() {
		if err := checkURL(s.guard, "destination.client_credentials.token_url", c.TokenUrl); err != nil {
			return change, err
		}
	}
	if change.value == "" && (was == nil || c.TokenUrl != was.TokenUrl || c.ClientId != was.ClientId) {
		return change, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "destination.client_credentials.client_secret",
			"the client_secret must be given with a new token_url or client_id: the present one is not sent elsewhere")
	}
	known := change.value
	if known == "" {
		known = "kept" // only the rest is to be checked
	}
	if _, err := route.NewClientCredentials(c, secret.New([]byte(known))); err != nil {
		return change, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "destination.client_credentials", "%v", err)
	}
	for _, h := range d.Headers {
		if strings.EqualFold(h.Name, "Authorization") {
			return change, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "destination.headers",
				"the header Authorization bears the access token: leave it out, or leave client_credentials out")
		}
	}
	return change, nil
}

// storeOutbound stores what a destination asks for beyond a plain request and may not be shown, in the transaction that stores
// the rest. headers is the column of that name as it was, nil: there was none.
func (s *destinationService) storeOutbound(ctx context.Context, tx pgx.Tx, row store.Destination, d destinationSettings, headers []byte) error {
	if d.ClientTls != nil || d.ClientCredentials != nil || len(d.Headers) > 0 {
		if err := s.awaitUpgrade(ctx, tx); err != nil {
			return err
		}
	}
	if err := s.storeCredentials(ctx, tx, row.TenantID, row.DestinationID, d.credentials); err != nil {
		return err
	}
	return s.storeHeaders(ctx, tx, row, d.Headers, headers)
}

// awaitUpgrade refuses what a live node of an earlier version would not honour.
func (a *api) awaitUpgrade(ctx context.Context, tx pgx.Tx) error {
	old, err := a.DB.OldNodes(ctx, tx, delivery.Features, nodeGone.Seconds())
	if err != nil {
		return fmt.Errorf("look for old nodes: %w", err)
	}
	if !old {
		return nil
	}
	r := refuse(kapselv1.ErrorReason_ERROR_REASON_UPGRADE_UNDER_WAY, "a node of an earlier version is running, which does not know "+
		"sealed headers, client_tls, client_credentials and listening sessions: upgrade it, then try again")
	r.retry = nodeGone
	return r
}

// storeCredentials carries changes out.
func (s *destinationService) storeCredentials(ctx context.Context, tx pgx.Tx, tenantID, destinationID uuid.UUID, changes []credentialChange) error {
	for _, change := range changes {
		if change.value == "" {
			err := s.DB.RemoveDestinationCredential(ctx, tx, tenantID, destinationID, change.kind)
			if err != nil {
				return err
			}
			continue
		}
		if err := s.putCredential(ctx, tx, tenantID, destinationID, change.kind, change.value); err != nil {
			return err
		}
	}
	return nil
}

func (s *destinationService) putCredential(ctx context.Context, tx pgx.Tx, tenantID, destinationID uuid.UUID, kind, value string) error {
	sealed, err := s.seal(tenantID, value, route.CredentialPurpose(kind))
	if err != nil {
		return err
	}
	return s.DB.PutDestinationCredential(ctx, tx, store.PutDestinationCredentialParams{
		TenantID: tenantID, DestinationID: destinationID, Kind: kind, CredentialID: sealed.id, Ciphertext: sealed.ciphertext,
	})
}

// describeOutbound decodes the public part of what is stored.
func describeOutbound(row store.Destination, d *kapselv1.Destination) error {
	var columns []column
	if row.ClientTls != nil {
		d.ClientTls = new(kapselv1.ClientTls)
		columns = append(columns, column{row.ClientTls, d.ClientTls})
	}
	if row.ClientCredentials != nil {
		d.ClientCredentials = new(kapselv1.ClientCredentials)
		columns = append(columns, column{row.ClientCredentials, d.ClientCredentials})
	}
	if err := decodeColumns(columns...); err != nil {
		return err
	}
	if d.ClientTls.GetCertificateChain() != "" {
		if notAfter, ok := route.ChainEnds([]byte(d.ClientTls.CertificateChain)); ok {
			d.ClientTls.CertificateExpireTime = timestamppb.New(notAfter)
		}
	}
	return nil
}

// outboundColumns are what is stored of them.
func outboundColumns(d *kapselv1.Destination, row *store.CreateDestinationParams) map[*[]byte]proto.Message {
	columns := make(map[*[]byte]proto.Message, 2)
	if d.ClientTls != nil {
		columns[&row.ClientTls] = d.ClientTls
	}
	if d.ClientCredentials != nil {
		columns[&row.ClientCredentials] = d.ClientCredentials
	}
	return columns
}
