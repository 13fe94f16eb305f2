package signature

import (
	"net/http"
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
// docs/presets has a page for each, generated from it.
var presets = slices.Concat([]Preset{
	{
		Name:  PresetNone,
		Title: "Anyone",
	},
	{
		Name:            PresetGeneric,
		Title:           "Any HMAC in a header",
		Algorithm:       HMACSHA256,
		Header:          "X-Signature",
		Encoding:        Hex,
		Content:         "{body}",
		ReceiverChooses: true,
	},
	{
		Name:            PresetStandardWebhooks,
		Title:           "Standard Webhooks",
		Documentation:   "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
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
		// Also Clerk, Resend and others who send through Svix.
		Name:            "svix",
		Title:           "Svix",
		Documentation:   "https://docs.svix.com/receiving/verifying-payloads/how-manual",
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
		Name:            PresetGitHub,
		Title:           "GitHub",
		Documentation:   "https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries",
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
		// Idempotency-Key stays the same when GitLab
		// tries again; X-Gitlab-Event-UUID does not belong to one delivery.
		Name:            "gitlab",
		Title:           "GitLab, secret token",
		Documentation:   "https://docs.gitlab.com/user/project/integrations/webhooks/",
		Algorithm:       Token,
		Header:          "X-Gitlab-Token",
		Encoding:        Plain,
		ReceiverChooses: true,
		DeliveryID:      Field{Header: "Idempotency-Key"},
		EventType:       Field{Header: "X-Gitlab-Event"},
	},
	{
		Name:            "gitlab-signed",
		Title:           "GitLab, signing token",
		Documentation:   "https://docs.gitlab.com/user/project/integrations/webhooks/",
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
		EventType:       Field{Header: "X-Gitlab-Event"},
	},
	{
		Name:            "bitbucket",
		Title:           "Bitbucket Cloud",
		Documentation:   "https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/",
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
		Name:          "vercel",
		Title:         "Vercel",
		Documentation: "https://vercel.com/docs/webhooks/webhooks-api",
		Algorithm:     HMACSHA1,
		Header:        "X-Vercel-Signature",
		Encoding:      Hex,
		Content:       "{body}",
		DeliveryID:    Field{JSON: []string{"id"}},
		EventType:     Field{JSON: []string{"type"}},
	},
	{
		// Its timestamp header is not signed.
		Name:          "sentry",
		Title:         "Sentry",
		Documentation: "https://docs.sentry.io/integrations/integration-platform/webhooks/",
		Algorithm:     HMACSHA256,
		Header:        "Sentry-Hook-Signature",
		Encoding:      Hex,
		Content:       "{body}",
		DeliveryID:    Field{Header: "Request-ID"},
		EventType:     Field{Header: "Sentry-Hook-Resource"},
	},
	{
		Name:          "pagerduty",
		Title:         "PagerDuty",
		Documentation: "https://docs.pagerduty.com/developer/verifying-webhook-signatures",
		Algorithm:     HMACSHA256,
		Header:        "X-PagerDuty-Signature",
		Separator:     ",",
		Prefix:        "v1=",
		Encoding:      Hex,
		Content:       "{body}",
		DeliveryID:    Field{JSON: []string{"event.id"}},
		EventType:     Field{JSON: []string{"event.event_type"}},
	},
}

// Payments.
var moneyPresets = []Preset{
	{
		// The secret begins with whsec_ too, but the key is the whole string.
		Name:            PresetStripe,
		Title:           "Stripe",
		Documentation:   "https://docs.stripe.com/webhooks",
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
		// Only these fields are signed, of the one item that a webhook has.
		Name:          "adyen",
		Title:         "Adyen, payments",
		Documentation: "https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures",
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
		Name:          "adyen-platform",
		Title:         "Adyen, platforms and management",
		Documentation: "https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures",
		Algorithm:     HMACSHA256,
		Header:        "HmacSignature",
		Encoding:      Base64,
		Content:       "{body}",
		KeyForm:       KeyHex,
		RepeatsBody:   true, // it holds the time
		EventType:     Field{JSON: []string{"type"}},
	},
	{
		Name:          "square",
		Title:         "Square",
		Documentation: "https://developer.squareup.com/docs/webhooks/step3validate",
		Algorithm:     HMACSHA256,
		Header:        "X-Square-HmacSha256-Signature",
		Encoding:      Base64,
		Content:       "{url}{body}",
		DeliveryID:    Field{JSON: []string{"event_id"}},
		EventType:     Field{JSON: []string{"type"}},
	},
	{
		// Paddle's libraries take 5 seconds, which
		// a clock can easily be off.
		Name:            "paddle",
		Title:           "Paddle",
		Documentation:   "https://developer.paddle.com/webhooks/about/signature-verification",
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
		Name:            "razorpay",
		Title:           "Razorpay",
		Documentation:   "https://razorpay.com/docs/webhooks/validate-test/",
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
		Name:          PresetShopify,
		Title:         "Shopify",
		Documentation: "https://shopify.dev/docs/apps/build/webhooks/verify-deliveries",
		Algorithm:     HMACSHA256,
		Header:        "X-Shopify-Hmac-Sha256",
		Encoding:      Base64,
		Content:       "{body}",
		DeliveryID:    Field{Header: "X-Shopify-Webhook-Id"},
		EventType:     Field{Header: "X-Shopify-Topic"},
	},
	{
		// X-WC-Webhook-Delivery-ID is the same for all deliveries
		// of one second, so it is no id; the body is.
		Name:            "woocommerce",
		Title:           "WooCommerce",
		Documentation:   "https://developer.woocommerce.com/docs/apis/rest-api/v3/webhooks/",
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
		Name:            "slack",
		Title:           "Slack",
		Documentation:   "https://docs.slack.dev/authentication/verifying-requests-from-slack/",
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
		// Webhook events; an application's interactions are signed in the same way.
		Name:            "discord",
		Title:           "Discord",
		Documentation:   "https://docs.discord.com/developers/events/webhook-events",
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
		Acknowledgement: http.StatusNoContent,
	},
	{
		Name:            "twilio",
		Title:           "Twilio",
		Documentation:   "https://www.twilio.com/docs/usage/webhooks/webhooks-security",
		Algorithm:       HMACSHA1,
		Header:          "X-Twilio-Signature",
		Encoding:        Base64,
		Content:         "{url}{form}",
		BodyDigestQuery: "bodySHA256",
		DeliveryID:      Field{Header: "I-Twilio-Idempotency-Token"},
		Acknowledgement: http.StatusNoContent, // it wants TwiML or nothing
	},
	{
		// Batches are sent again for up to 24 hours, and it is not said that they are signed anew.
		Name:            "sendgrid",
		Title:           "SendGrid",
		Documentation:   "https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features",
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
		Name:            "postmark",
		Title:           "Postmark",
		Documentation:   "https://postmarkapp.com/developer/webhooks/webhooks-overview",
		Algorithm:       Token,
		Header:          "Authorization",
		Prefix:          "Basic ",
		Encoding:        Plain,
		KeyForm:         KeyBasicAuth,
		ReceiverChooses: true,
		RepeatsBody:     true, // MessageID is the same for all that happens to a message
		EventType:       Field{JSON: []string{"RecordType"}},
		Acknowledgement: http.StatusOK,
	},
	{
		Name:          "intercom",
		Title:         "Intercom",
		Documentation: "https://developers.intercom.com/docs/webhooks/webhook-notifications",
		Algorithm:     HMACSHA1,
		Header:        "X-Hub-Signature",
		Prefix:        "sha1=",
		Encoding:      Hex,
		Content:       "{body}",
		DeliveryID:    Field{JSON: []string{"id"}},
		EventType:     Field{JSON: []string{"topic"}},
		Handshake:     IntercomHead,
	},
	{
		Name:            "meta",
		Title:           "Meta",
		Documentation:   "https://developers.facebook.com/docs/graph-api/webhooks/getting-started",
		Algorithm:       HMACSHA256,
		Header:          "X-Hub-Signature-256",
		Prefix:          "sha256=",
		Encoding:        Hex,
		Content:         "{body}",
		KeyForm:         KeyVerifyToken,
		RepeatsBody:     true, // it holds ids and times
		EventType:       Field{JSON: []string{"object"}},
		Handshake:       MetaChallenge,
		Acknowledgement: http.StatusOK,
	},
	{
		Name:            "x",
		Title:           "X",
		Documentation:   "https://docs.x.com/x-api/webhooks/quickstart",
		Algorithm:       HMACSHA256,
		Header:          "X-Twitter-Webhooks-Signature",
		Prefix:          "sha256=",
		Encoding:        Base64,
		Content:         "{body}",
		RepeatsBody:     true, // it holds ids and times
		Handshake:       XChallenge,
		Acknowledgement: http.StatusOK,
	},
	{
		Name:            "zoom",
		Title:           "Zoom",
		Documentation:   "https://developers.zoom.us/docs/api/webhooks/",
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
		Acknowledgement: http.StatusOK,
	},
}

// Work: planning, forms, customers, documents.
var workPresets = []Preset{
	{
		// A minute is what Linear recommends.
		Name:            "linear",
		Title:           "Linear",
		Documentation:   "https://linear.app/developers/webhooks",
		Algorithm:       HMACSHA256,
		Header:          "Linear-Signature",
		Encoding:        Hex,
		Content:         "{body}",
		TimestampJSON:   "webhookTimestamp",
		TimestampUnit:   time.Millisecond,
		Tolerance:       time.Minute,
		DeliveryID:      Field{Header: "Linear-Delivery"},
		EventType:       Field{Header: "Linear-Event"},
		Acknowledgement: http.StatusOK,
	},
	{
		// Version 3 of its signatures. A batch that is sent again has
		// another attemptNumber and is a new event: its eventIds are not unique.
		Name:            "hubspot",
		Title:           "HubSpot",
		Documentation:   "https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation",
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
		Name:            "typeform",
		Title:           "Typeform",
		Documentation:   "https://www.typeform.com/developers/webhooks/secure-your-webhooks/",
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
		Name:            "calendly",
		Title:           "Calendly",
		Documentation:   "https://developer.calendly.com/api-docs/overview/webhooks/webhook-signatures",
		Algorithm:       HMACSHA256,
		Header:          "Calendly-Webhook-Signature",
		Separator:       ",",
		Prefix:          "v1=",
		Encoding:        Hex,
		Content:         "{timestamp}.{body}",
		TimestampPrefix: "t=",
		Tolerance:       defaultTolerance,
		ReceiverChooses: true, // where the subscription is made with a personal access token
		RepeatsBody:     true, // it holds the time and the invitee
		EventType:       Field{JSON: []string{"event"}},
	},
	{
		// clientState is the secret of the subscription. Two changes of one thing may be told in the same bytes, so
		// that nothing tells a repeat.
		Name:            "microsoft-graph",
		Title:           "Microsoft Graph",
		Documentation:   "https://learn.microsoft.com/en-us/graph/change-notifications-delivery-webhooks",
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
