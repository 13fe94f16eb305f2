package signature

import (
	"slices"
	"time"
)

// Names of the presets that other packages speak of.
const (
	PresetNone             = "none"
	PresetGeneric          = "generic"
	PresetStandardWebhooks = "standard-webhooks"
	PresetGitHub           = "github"
	PresetShopify          = "shopify"
	PresetStripe           = "stripe"
)

// presets is the table of providers. The generic entry holds the defaults that Config overrides.
// docs/presets.md shows it, and a test holds the two together.
var presets = slices.Concat([]Preset{
	{
		Name: PresetNone,
	},
	{
		Name:            PresetGeneric,
		Algorithm:       HMACSHA256,
		Header:          "X-Signature",
		Encoding:        Hex,
		Content:         "{body}",
		ReceiverChooses: true,
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
		ReceiverChooses: true,
		DeliveryID:      Field{Header: "Webhook-Id"},
		EventType:       Field{JSON: []string{"type"}},
	},
	{
		// docs.svix.com, "Verifying webhooks manually". Also Clerk, Resend and others who send
		// through Svix.
		Name:            "svix",
		Algorithm:       HMACSHA256,
		Header:          "Svix-Signature",
		Separator:       " ",
		Prefix:          "v1,",
		Encoding:        Base64,
		Content:         "{id}.{timestamp}.{body}",
		TimestampHeader: "Svix-Timestamp",
		Tolerance:       defaultTolerance,
		KeyForm:         KeyStandardWebhooks,
		DeliveryID:      Field{Header: "Svix-Id"},
		EventType:       Field{JSON: []string{"type"}},
	},
}, codePresets, moneyPresets, shopPresets, messagePresets, workPresets)

// Code hosting and operations.
var codePresets = []Preset{
	{
		// docs.github.com, "Validating webhook deliveries" and "Webhook events and payloads"
		Name:            PresetGitHub,
		Algorithm:       HMACSHA256,
		Header:          "X-Hub-Signature-256",
		Prefix:          "sha256=",
		Encoding:        Hex,
		Content:         "{body}",
		ReceiverChooses: true,
		DeliveryID:      Field{Header: "X-GitHub-Delivery"},
		EventType:       Field{Header: "X-GitHub-Event"},
	},
	{
		// docs.gitlab.com, "Webhooks", secret token. Idempotency-Key stays the same when GitLab
		// tries again; X-Gitlab-Event-UUID does not belong to one delivery.
		Name:            "gitlab",
		Algorithm:       Token,
		Header:          "X-Gitlab-Token",
		Encoding:        Plain,
		ReceiverChooses: true,
		DeliveryID:      Field{Header: "Idempotency-Key"},
		EventType:       Field{Header: "X-Gitlab-Event"},
	},
	{
		// docs.gitlab.com, "Webhooks", signing token: Standard Webhooks.
		Name:            "gitlab-signed",
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
		EventType:       Field{Header: "X-Gitlab-Event"},
	},
	{
		// support.atlassian.com, "Manage webhooks" of Bitbucket Cloud
		Name:            "bitbucket",
		Algorithm:       HMACSHA256,
		Header:          "X-Hub-Signature",
		Prefix:          "sha256=",
		Encoding:        Hex,
		Content:         "{body}",
		ReceiverChooses: true,
		DeliveryID:      Field{Header: "X-Request-UUID"},
		EventType:       Field{Header: "X-Event-Key"},
	},
	{
		// vercel.com/docs/webhooks, "Securing webhooks"
		Name:       "vercel",
		Algorithm:  HMACSHA1,
		Header:     "X-Vercel-Signature",
		Encoding:   Hex,
		Content:    "{body}",
		DeliveryID: Field{JSON: []string{"id"}},
		EventType:  Field{JSON: []string{"type"}},
	},
	{
		// docs.sentry.io, "Integration platform: webhooks". Its timestamp header is not signed.
		Name:       "sentry",
		Algorithm:  HMACSHA256,
		Header:     "Sentry-Hook-Signature",
		Encoding:   Hex,
		Content:    "{body}",
		DeliveryID: Field{Header: "Request-ID"},
		EventType:  Field{Header: "Sentry-Hook-Resource"},
	},
	{
		// developer.pagerduty.com, "Verifying signatures" of v3 webhooks
		Name:       "pagerduty",
		Algorithm:  HMACSHA256,
		Header:     "X-PagerDuty-Signature",
		Separator:  ",",
		Prefix:     "v1=",
		Encoding:   Hex,
		Content:    "{body}",
		DeliveryID: Field{JSON: []string{"event.id"}},
		EventType:  Field{JSON: []string{"event.event_type"}},
	},
}

// Payments.
var moneyPresets = []Preset{
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
		DeliveryID:      Field{JSON: []string{"id"}},
		EventType:       Field{JSON: []string{"type"}},
	},
	{
		// docs.adyen.com, "Verify HMAC signatures", payment webhooks. Only these fields are signed,
		// of the one item that a webhook has.
		Name:          "adyen",
		Algorithm:     HMACSHA256,
		SignatureJSON: adyenItem + "additionalData.hmacSignature",
		OnlyItemJSON:  "notificationItems.1",
		Encoding:      Base64,
		Content: "{json:" + adyenItem + "pspReference}:{json:" + adyenItem + "originalReference}:{json:" + adyenItem + "merchantAccountCode}:" +
			"{json:" + adyenItem + "merchantReference}:{json:" + adyenItem + "amount.value}:{json:" + adyenItem + "amount.currency}:" +
			"{json:" + adyenItem + "eventCode}:{json:" + adyenItem + "success}",
		KeyForm:    KeyHex,
		DeliveryID: Field{JSON: []string{adyenItem + "eventCode", adyenItem + "pspReference", adyenItem + "success"}},
		EventType:  Field{JSON: []string{adyenItem + "eventCode"}},
	},
	{
		// docs.adyen.com, "Verify HMAC signatures", platform and management webhooks
		Name:        "adyen-platform",
		Algorithm:   HMACSHA256,
		Header:      "HmacSignature",
		Encoding:    Base64,
		Content:     "{body}",
		KeyForm:     KeyHex,
		RepeatsBody: true, // it holds the time
		EventType:   Field{JSON: []string{"type"}},
	},
	{
		// developer.squareup.com, "Verify and validate an event notification"
		Name:       "square",
		Algorithm:  HMACSHA256,
		Header:     "X-Square-HmacSha256-Signature",
		Encoding:   Base64,
		Content:    "{url}{body}",
		DeliveryID: Field{JSON: []string{"event_id"}},
		EventType:  Field{JSON: []string{"type"}},
	},
	{
		// developer.paddle.com, "Verify webhook signatures". Paddle's libraries take 5 seconds, which
		// a clock can easily be off.
		Name:            "paddle",
		Algorithm:       HMACSHA256,
		Header:          "Paddle-Signature",
		Separator:       ";",
		Prefix:          "h1=",
		Encoding:        Hex,
		Content:         "{timestamp}:{body}",
		TimestampPrefix: "ts=",
		Tolerance:       defaultTolerance,
		DeliveryID:      Field{JSON: []string{"event_id"}},
		EventType:       Field{JSON: []string{"event_type"}},
	},
	{
		// razorpay.com/docs/webhooks, "Validate and test webhooks"
		Name:            "razorpay",
		Algorithm:       HMACSHA256,
		Header:          "X-Razorpay-Signature",
		Encoding:        Hex,
		Content:         "{body}",
		ReceiverChooses: true,
		DeliveryID:      Field{Header: "X-Razorpay-Event-Id"},
		EventType:       Field{JSON: []string{"event"}},
	},
}

const adyenItem = "notificationItems.0.NotificationRequestItem."

// Shops.
var shopPresets = []Preset{
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
	{
		// woocommerce.com/document/webhooks. X-WC-Webhook-Delivery-ID is the same for all deliveries
		// of one second, so it is no id; the body is.
		Name:            "woocommerce",
		Algorithm:       HMACSHA256,
		Header:          "X-WC-Webhook-Signature",
		Encoding:        Base64,
		Content:         "{body}",
		ReceiverChooses: true,
		RepeatsBody:     true,
		EventType:       Field{Header: "X-WC-Webhook-Topic"},
		Handshake:       WooCommercePing,
	},
}

// Messages, mail and calls.
var messagePresets = []Preset{
	{
		// docs.slack.dev, "Verifying requests from Slack"
		Name:            "slack",
		Algorithm:       HMACSHA256,
		Header:          "X-Slack-Signature",
		Prefix:          "v0=",
		Encoding:        Hex,
		Content:         "v0:{timestamp}:{body}",
		TimestampHeader: "X-Slack-Request-Timestamp",
		Tolerance:       defaultTolerance,
		DeliveryID:      Field{JSON: []string{"event_id"}},
		RepeatsBody:     true, // commands and actions hold a trigger_id
		EventType:       Field{JSON: []string{"event.type"}},
		Handshake:       SlackURLVerification,
	},
	{
		// discord.com/developers/docs, "Interactions: setting up an endpoint" and "Webhook events"
		Name:            "discord",
		Algorithm:       Ed25519,
		Header:          "X-Signature-Ed25519",
		Encoding:        Hex,
		Content:         "{timestamp}{body}",
		TimestampHeader: "X-Signature-Timestamp",
		Tolerance:       defaultTolerance,
		KeyForm:         KeyEd25519,
		DeliveryID:      Field{JSON: []string{"id"}},
		RepeatsBody:     true, // webhook events have no id, but hold their time
		EventType:       Field{JSON: []string{"event.type"}},
		Handshake:       DiscordPing,
	},
	{
		// www.twilio.com/docs/usage/security, "Validating requests"
		Name:            "twilio",
		Algorithm:       HMACSHA1,
		Header:          "X-Twilio-Signature",
		Encoding:        Base64,
		Content:         "{url}{form}",
		BodyDigestQuery: "bodySHA256",
		DeliveryID:      Field{Header: "I-Twilio-Idempotency-Token"},
	},
	{
		// www.twilio.com/docs/sendgrid, "Getting started with the Event Webhook security features".
		// Batches are sent again for up to 24 hours, and it is not said that they are signed anew.
		Name:            "sendgrid",
		Algorithm:       ECDSAP256,
		Header:          "X-Twilio-Email-Event-Webhook-Signature",
		Encoding:        Base64,
		Content:         "{timestamp}{body}",
		TimestampHeader: "X-Twilio-Email-Event-Webhook-Timestamp",
		Tolerance:       maxTolerance,
		KeyForm:         KeyECDSA,
		RepeatsBody:     true, // each event of the batch holds an sg_event_id
		EventType:       Field{JSON: []string{"0.event"}},
	},
	{
		// postmarkapp.com/developer/webhooks, "Protecting your webhook": basic authentication
		Name:            "postmark",
		Algorithm:       Token,
		Header:          "Authorization",
		Prefix:          "Basic ",
		Encoding:        Plain,
		KeyForm:         KeyBasicAuth,
		ReceiverChooses: true,
		RepeatsBody:     true, // MessageID is the same for all that happens to a message
		EventType:       Field{JSON: []string{"RecordType"}},
	},
	{
		// developers.intercom.com, "Webhooks: signed notifications"
		Name:       "intercom",
		Algorithm:  HMACSHA1,
		Header:     "X-Hub-Signature",
		Prefix:     "sha1=",
		Encoding:   Hex,
		Content:    "{body}",
		DeliveryID: Field{JSON: []string{"id"}},
		EventType:  Field{JSON: []string{"topic"}},
	},
	{
		// developers.facebook.com/docs/graph-api/webhooks: Facebook, Instagram, WhatsApp, Threads
		Name:        "meta",
		Algorithm:   HMACSHA256,
		Header:      "X-Hub-Signature-256",
		Prefix:      "sha256=",
		Encoding:    Hex,
		Content:     "{body}",
		KeyForm:     KeyVerifyToken,
		RepeatsBody: true, // it holds ids and times
		EventType:   Field{JSON: []string{"object"}},
		Handshake:   MetaChallenge,
	},
	{
		// docs.x.com, "Account Activity API: securing webhooks"
		Name:        "x",
		Algorithm:   HMACSHA256,
		Header:      "X-Twitter-Webhooks-Signature",
		Prefix:      "sha256=",
		Encoding:    Base64,
		Content:     "{body}",
		RepeatsBody: true, // it holds ids and times
		Handshake:   XChallenge,
	},
	{
		// developers.zoom.us/docs/api/webhooks, "Verify webhook events"
		Name:            "zoom",
		Algorithm:       HMACSHA256,
		Header:          "X-Zm-Signature",
		Prefix:          "v0=",
		Encoding:        Hex,
		Content:         "v0:{timestamp}:{body}",
		TimestampHeader: "X-Zm-Request-Timestamp",
		Tolerance:       defaultTolerance,
		RepeatsBody:     true, // it holds event_ts
		EventType:       Field{JSON: []string{"event"}},
		Handshake:       ZoomURLValidation,
	},
}

// Work: planning, forms, customers, documents.
var workPresets = []Preset{
	{
		// linear.app/developers/webhooks, "Securing webhooks": a minute is what Linear recommends
		Name:          "linear",
		Algorithm:     HMACSHA256,
		Header:        "Linear-Signature",
		Encoding:      Hex,
		Content:       "{body}",
		TimestampJSON: "webhookTimestamp",
		TimestampUnit: time.Millisecond,
		Tolerance:     time.Minute,
		DeliveryID:    Field{Header: "Linear-Delivery"},
		EventType:     Field{Header: "Linear-Event"},
	},
	{
		// developers.hubspot.com, "Validating requests", version 3. A batch that is sent again has
		// another attemptNumber and is a new event: its eventIds are not unique.
		Name:            "hubspot",
		Algorithm:       HMACSHA256,
		Header:          "X-HubSpot-Signature-v3",
		Encoding:        Base64,
		Content:         "{method}{url}{body}{timestamp}",
		DecodedURL:      ":/?@!$'()*,;",
		TimestampHeader: "X-HubSpot-Request-Timestamp",
		TimestampUnit:   time.Millisecond,
		Tolerance:       defaultTolerance,
		RepeatsBody:     true,
		EventType:       Field{JSON: []string{"0.subscriptionType"}},
	},
	{
		// www.typeform.com/developers/webhooks, "Secure your webhooks"
		Name:            "typeform",
		Algorithm:       HMACSHA256,
		Header:          "Typeform-Signature",
		Prefix:          "sha256=",
		Encoding:        Base64,
		Content:         "{body}",
		ReceiverChooses: true,
		DeliveryID:      Field{JSON: []string{"event_id"}},
		EventType:       Field{JSON: []string{"event_type"}},
	},
	{
		// developer.calendly.com, "Webhook signatures"
		Name:            "calendly",
		Algorithm:       HMACSHA256,
		Header:          "Calendly-Webhook-Signature",
		Separator:       ",",
		Prefix:          "v1=",
		Encoding:        Hex,
		Content:         "{timestamp}.{body}",
		TimestampPrefix: "t=",
		Tolerance:       defaultTolerance,
		RepeatsBody:     true, // it holds the time and the invitee
		EventType:       Field{JSON: []string{"event"}},
	},
	{
		// learn.microsoft.com/graph, "Receive change notifications through webhooks": clientState is
		// the secret of the subscription. Two changes of one thing may be told in the same bytes, so
		// that nothing tells a repeat.
		Name:            "microsoft-graph",
		Algorithm:       Token,
		SignatureJSON:   "value.0.clientState",
		Encoding:        Plain,
		ReceiverChooses: true,
		EventType:       Field{JSON: []string{"value.0.changeType"}},
		Handshake:       GraphValidation,
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
