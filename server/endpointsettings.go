package server

import (
	"strconv"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/schema"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/store"
)

// Defaults of an endpoint, as the contract documents them. They are written into the row, so that an endpoint stays as it
// was made when a default changes.
const (
	defaultMaxBodyBytes = 1 << 20
	defaultDedupWindow  = 24 * time.Hour
)

// endpointSettings is an endpoint that can be stored: every default filled in, and each setting honoured.
type endpointSettings struct {
	*kapselv1.Endpoint
	signature signature.Config
}

// readEndpoint checks an endpoint that is to be made.
func readEndpoint(given *kapselv1.Endpoint) (endpointSettings, error) {
	e := proto.CloneOf(given)
	if e.PayloadFormat == kapselv1.PayloadFormat_PAYLOAD_FORMAT_UNSPECIFIED {
		e.PayloadFormat = kapselv1.PayloadFormat_PAYLOAD_FORMAT_ANY
	}
	if err := checkSchema(e); err != nil {
		return endpointSettings{}, err
	}
	if e.State == kapselv1.EndpointState_ENDPOINT_STATE_UNSPECIFIED {
		e.State = kapselv1.EndpointState_ENDPOINT_STATE_ENABLED
	}
	if e.MaxBodyBytes == 0 {
		e.MaxBodyBytes = defaultMaxBodyBytes
	}
	if e.Deduplication == nil {
		e.Deduplication = new(kapselv1.Deduplication)
	}
	if e.Deduplication.Source == kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_UNSPECIFIED {
		e.Deduplication.Source = kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_AUTO
	}
	if e.Deduplication.Window == nil {
		e.Deduplication.Window = durationpb.New(defaultDedupWindow)
	}
	if e.EventTypeSource == nil {
		e.EventTypeSource = new(kapselv1.EventTypeSource)
	}
	if e.EventTypeSource.Kind == kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_UNSPECIFIED {
		e.EventTypeSource.Kind = kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_AUTO
	}
	if e.Verification == nil {
		e.Verification = new(kapselv1.Verification)
	}
	config, err := readVerification(e.Verification)
	return endpointSettings{Endpoint: e, signature: config}, err
}

// checkSchema compiles the endpoint's JSON Schema, if it has one.
func checkSchema(e *kapselv1.Endpoint) error {
	if e.JsonSchema == "" {
		return nil
	}
	if e.PayloadFormat != kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "endpoint.json_schema",
			"a schema needs payload_format JSON")
	}
	if _, err := schema.Compile(e.JsonSchema); err != nil {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "endpoint.json_schema", "%v", err)
	}
	return nil
}

// readVerification fills in v's defaults and checks it.
func readVerification(v *kapselv1.Verification) (signature.Config, error) {
	if v.Preset == "" {
		v.Preset = signature.PresetNone
	}
	preset, found := signature.Lookup(v.Preset)
	if !found {
		names := ""
		for _, p := range signature.Presets() {
			names += " " + p.Name
		}
		return signature.Config{}, refuseField(kapselv1.ErrorReason_ERROR_REASON_UNKNOWN_PRESET, "endpoint.verification.preset",
			"there is no verification preset %q: use one of%s", v.Preset, names)
	}
	if !preset.Timed() && v.GetGeneric().GetTimestampHeader() == "" {
		v.Tolerance = nil // without meaning where no timestamp is signed
	}
	config := route.SignatureConfig(v)
	if err := config.Check(); err != nil {
		return signature.Config{}, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "endpoint.verification", "%v", err)
	}
	return config, nil
}

// chooseSecrets checks the given secrets, or generates one where the preset needs one and lets the receiver choose it.
func (e endpointSettings) chooseSecrets(given []string) (secrets []string, generated string, err error) {
	preset, _ := signature.Lookup(e.signature.Preset)
	if len(given) == 0 && preset.Algorithm != signature.AlgorithmNone {
		if !preset.ReceiverChooses {
			return nil, "", refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "secrets",
				"the provider of preset %q chooses the secret: give the one that it shows", preset.Name)
		}
		generated = preset.NewSecret()
		given = []string{generated}
	}
	keys := make([][]byte, len(given))
	for i, value := range given {
		keys[i] = []byte(value)
	}
	if _, err := signature.NewVerifier(e.signature, keys); err != nil {
		return nil, "", refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "secrets", "%v", err)
	}
	return given, generated, nil
}

// row is what is stored, without its ids.
func (e endpointSettings) row() (store.CreateEndpointParams, error) {
	row := store.CreateEndpointParams{
		DisplayName: e.DisplayName, State: "enabled", PayloadFormat: "any", JsonSchema: e.JsonSchema, MaxBodyBytes: e.MaxBodyBytes,
	}
	if e.State == kapselv1.EndpointState_ENDPOINT_STATE_DISABLED {
		row.State = "disabled"
	}
	if e.PayloadFormat == kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON {
		row.PayloadFormat = "json"
	}
	for column, message := range map[*[]byte]proto.Message{
		&row.Verification: e.Verification, &row.Deduplication: e.Deduplication, &row.EventTypeSource: e.EventTypeSource,
	} {
		var err error
		if *column, err = protojson.Marshal(message); err != nil {
			return row, err
		}
	}
	return row, nil
}

// describeEndpoint makes the resource of a row, without its secrets.
func describeEndpoint(row store.Endpoint, publicURL string) (*kapselv1.Endpoint, error) {
	text := id.Endpoint.Text(row.EndpointID)
	e := &kapselv1.Endpoint{
		Id: text, DisplayName: row.DisplayName, JsonSchema: row.JsonSchema, MaxBodyBytes: row.MaxBodyBytes,
		Verification: new(kapselv1.Verification), Deduplication: new(kapselv1.Deduplication), EventTypeSource: new(kapselv1.EventTypeSource),
		PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_ANY, State: kapselv1.EndpointState_ENDPOINT_STATE_ENABLED,
		IngestUrl:  publicURL + ingestPath + text,
		CreateTime: timestamppb.New(row.CreatedAt), UpdateTime: timestamppb.New(row.UpdatedAt), Etag: etag(row.UpdatedAt),
	}
	if row.PayloadFormat == "json" {
		e.PayloadFormat = kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON
	}
	if row.State == "disabled" {
		e.State = kapselv1.EndpointState_ENDPOINT_STATE_DISABLED
	}
	return e, decodeColumns(column{row.Verification, e.Verification}, column{row.Deduplication, e.Deduplication},
		column{row.EventTypeSource, e.EventTypeSource})
}

// column is a message that is stored as JSON.
type column struct {
	data    []byte
	message proto.Message
}

func decodeColumns(columns ...column) error {
	for _, c := range columns {
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(c.data, c.message); err != nil {
			return err
		}
	}
	return nil
}

func describeSecret(secretID uuid.UUID, createdAt time.Time, expiresAt *time.Time) *kapselv1.Secret {
	s := &kapselv1.Secret{Id: id.Secret.Text(secretID), CreateTime: timestamppb.New(createdAt)}
	if expiresAt != nil {
		s.ExpireTime = timestamppb.New(*expiresAt)
	}
	return s
}

// etag changes with each change of a row, since each sets updated_at.
func etag(updatedAt time.Time) string { return strconv.FormatInt(updatedAt.UnixMicro(), 36) }
