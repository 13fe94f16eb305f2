package signature

import "slices"

// Names of the presets.
const (
	PresetNone             = "none"
	PresetGeneric          = "generic"
	PresetStandardWebhooks = "standard-webhooks"
	PresetGitHub           = "github"
	PresetShopify          = "shopify"
	PresetStripe           = "stripe"
)

// presets is the table of providers. The generic entry holds the defaults that Config overrides.
var presets = []Preset{
	{
		Name: PresetNone,
	},
	{
		Name:      PresetGeneric,
		Algorithm: HMACSHA256,
		Header:    "X-Signature",
		Encoding:  Hex,
		Content:   "{body}",
	},
	{
		// github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md, 1.0.0
		Name:            PresetStandardWebhooks,
		Algorithm:       HMACSHA256,
		Header:          "Webhook-Signature",
		Separator:       " ",
		Prefix:          "v1,",
		Encoding:        Base64,
		Content:         "{id}.{timestamp}.{body}",
		TimestampHeader: "Webhook-Timestamp",
		Tolerance:       defaultTolerance,
		KeyForm:         KeyStandardWebhooks,
		DeliveryID:      Field{Header: "Webhook-Id"},
		EventType:       Field{JSON: "type"},
	},
	{
		// docs.github.com, "Validating webhook deliveries" and "Webhook events and payloads"
		Name:       PresetGitHub,
		Algorithm:  HMACSHA256,
		Header:     "X-Hub-Signature-256",
		Prefix:     "sha256=",
		Encoding:   Hex,
		Content:    "{body}",
		DeliveryID: Field{Header: "X-GitHub-Delivery"},
		EventType:  Field{Header: "X-GitHub-Event"},
	},
	{
		// docs.stripe.com/webhooks, "Verify webhook signatures manually". The secret begins
		// with whsec_ too, but the key is the whole string.
		Name:            PresetStripe,
		Algorithm:       HMACSHA256,
		Header:          "Stripe-Signature",
		Separator:       ",",
		Prefix:          "v1=",
		Encoding:        Hex,
		Content:         "{timestamp}.{body}",
		TimestampPrefix: "t=",
		Tolerance:       defaultTolerance,
		DeliveryID:      Field{JSON: "id"},
		EventType:       Field{JSON: "type"},
	},
	{
		// shopify.dev, "Deliver webhooks through HTTPS"
		Name:       PresetShopify,
		Algorithm:  HMACSHA256,
		Header:     "X-Shopify-Hmac-Sha256",
		Encoding:   Base64,
		Content:    "{body}",
		DeliveryID: Field{Header: "X-Shopify-Webhook-Id"},
		EventType:  Field{Header: "X-Shopify-Topic"},
	},
}

// Presets returns all presets, in the order of the table.
func Presets() []Preset { return slices.Clone(presets) }

// Lookup finds a preset by its name.
func Lookup(name string) (Preset, bool) {
	i := slices.IndexFunc(presets, func(p Preset) bool { return p.Name == name })
	if i < 0 {
		return Preset{}, false
	}
	return presets[i], true
}
