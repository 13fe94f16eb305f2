package signature

import (
	"net/http"
	"testing"
	"time"
)

// computed are messages that a few lines of another language's HMAC signed as the providers' documentation says, for those
// who publish no example. They keep the table from changing unnoticed.
var computed = []struct{ preset, header, value, secret, id, url, body string }{
	{preset: "gitlab-signed", header: "Webhook-Signature", value: "v1,6YWRJazQvfpvgDzo+pM/IXKCLFby4731nlSigrhaZ3g=", secret: "whsec_czNjcjN0", id: "msg_1"},
	{preset: "svix", header: "Svix-Signature", value: "v1,6YWRJazQvfpvgDzo+pM/IXKCLFby4731nlSigrhaZ3g=", secret: "whsec_czNjcjN0", id: "msg_1"},
	{preset: "gitlab", header: "X-Gitlab-Token", value: "s3cr3t"},
	{preset: "postmark", header: "Authorization", value: "Basic aG9vazpzM2NyM3Q=", secret: "hook:s3cr3t"},
	{preset: "bitbucket", header: "X-Hub-Signature", value: "sha256=6efb97394f4e61a767f41a51fe72c5261010e1cd503ad2a4b0f0f3de78cab147"},
	{preset: "vercel", header: "X-Vercel-Signature", value: "97a7e9756048893d36e8aa50f6984d446545410d"},
	{preset: "sentry", header: "Sentry-Hook-Signature", value: "6efb97394f4e61a767f41a51fe72c5261010e1cd503ad2a4b0f0f3de78cab147"},
	{preset: "pagerduty", header: "X-Pagerduty-Signature", value: "v1=6efb97394f4e61a767f41a51fe72c5261010e1cd503ad2a4b0f0f3de78cab147"},
	{preset: "razorpay", header: "X-Razorpay-Signature", value: "6efb97394f4e61a767f41a51fe72c5261010e1cd503ad2a4b0f0f3de78cab147"},
	{preset: "woocommerce", header: "X-Wc-Webhook-Signature", value: "bvuXOU9OYadn9BpR/nLFJhAQ4c1QOtKksPDz3njKsUc="},
	{preset: "intercom", header: "X-Hub-Signature", value: "sha1=97a7e9756048893d36e8aa50f6984d446545410d"},
	{preset: "meta", header: "X-Hub-Signature-256", value: "sha256=6efb97394f4e61a767f41a51fe72c5261010e1cd503ad2a4b0f0f3de78cab147"},
	{preset: "x", header: "X-Twitter-Webhooks-Signature", value: "sha256=bvuXOU9OYadn9BpR/nLFJhAQ4c1QOtKksPDz3njKsUc="},
	{preset: "typeform", header: "Typeform-Signature", value: "sha256=bvuXOU9OYadn9BpR/nLFJhAQ4c1QOtKksPDz3njKsUc="},
	{preset: "adyen-platform", header: "Hmacsignature", value: "bvuXOU9OYadn9BpR/nLFJhAQ4c1QOtKksPDz3njKsUc=", secret: "733363723374"},
	{preset: "square", header: "X-Square-Hmacsha256-Signature", value: "ZmVV6awsU0BsYZELWwEu1i83HTwHHgHgntd1LPg2QWs=", url: "https://hooks.example.com/in?a=1"},
	{preset: "paddle", header: "Paddle-Signature", value: "ts=1700000000;h1=23940a509bbdedbb8950cc14eabb539b183fa636aa54f59100d925032dfb8da4"},
	{preset: "calendly", header: "Calendly-Webhook-Signature", value: "t=1700000000,v1=6a11746ce0df56623b24531aa3c6221b94a3cde47955a97abc43acf207c91ec0"},
	{preset: "zoom", header: "X-Zm-Signature", value: "v0=b99c36e627459e31e1bb552e9e81313fcedaafd7dbc00edbd391401e63d62134"},
	{preset: "hubspot", header: "X-Hubspot-Signature-V3", value: "8UWTOF7gXGf7avdneSFS5mC9SQK3IuxWOU+oS5pjBqw=", url: "https://hooks.example.com/in?a=1"},
	{preset: "linear", header: "Linear-Signature", value: "44704e2fba2b5cd9c2796a201fbda9482c4d903ded38fd4434212f721c4d9ec7", body: `{"webhookTimestamp":1700000000000}`},
}

func TestComputedMessagesVerifyAndAreSignedAlike(t *testing.T) {
	at := time.Unix(1700000000, 0)
	for _, c := range computed {
		t.Run(c.preset, func(t *testing.T) {
			secret, body := c.secret, c.body
			if secret == "" {
				secret = "s3cr3t"
			}
			if body == "" {
				body = `{"id":"e1","text":"café"}`
			}
			config, p := Config{Preset: c.preset}, preset(c.preset)
			v, err := NewVerifier(config, asBytes([]string{secret}))
			if err != nil {
				t.Fatal(err)
			}
			r := Request{Method: http.MethodPost, URL: c.url, Header: http.Header{c.header: {c.value}}, Body: []byte(body)}
			if p.TimestampHeader != "" {
				timestamp := "1700000000"
				if p.TimestampUnit == time.Millisecond {
					timestamp += "000"
				}
				r.Header.Set(p.TimestampHeader, timestamp)
			}
			if c.id != "" {
				r.Header.Set(p.DeliveryID.Header, c.id)
			}
			if err := v.Verify(r, at); err != nil {
				t.Error(err)
			}
			signed, err := SignRequest(config, []byte(secret), Request{Method: http.MethodPost, URL: c.url, Body: []byte(body)}, at, c.id)
			if err != nil {
				t.Fatal(err)
			}
			if got := signed.Header.Get(c.header); got != c.value {
				t.Errorf("%s = %q, want %q", c.header, got, c.value)
			}
		})
	}
}
