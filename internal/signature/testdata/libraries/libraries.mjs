// Runs the providers' own libraries. Reads one JSON object from standard input:
//
//	sign:   [{preset, secret, url, body, id, now}]             now in Unix seconds
//	verify: [{preset, secret, url, body, headers}]             headers with names in lower case
//
// and writes one with the answers in the same order: sign as {headers, body}, or null where the library cannot sign;
// verify as true or false.
import { createRequire } from "node:module";
import * as octokit from "@octokit/webhooks-methods";
import "@shopify/shopify-api/adapters/node";
import { shopifyApi, ApiVersion } from "@shopify/shopify-api";
import { createSHA256HMAC, HashFormat } from "@shopify/shopify-api/runtime";
import { AwsLambdaReceiver } from "@zoom/rivet/chatbot";

const require = createRequire(import.meta.url);
const { Webhook: SvixWebhook } = require("svix");
const { Webhook: StandardWebhook } = require("standardwebhooks");
const Stripe = require("stripe");
const twilio = require("twilio");
const { EventWebhook } = require("@sendgrid/eventwebhook");
const { verifyKey } = require("discord-interactions");
const { hmacValidator } = require("@adyen/api-library");
const { WebhooksHelper } = require("square");
const { Paddle } = require("@paddle/paddle-node-sdk");
const { LinearWebhookClient } = require("@linear/sdk/webhooks");
const { Signature } = require("@hubspot/api-client");
const { isValidSlackRequest } = require("@slack/bolt");
const Razorpay = require("razorpay");

console.debug = () => {}; // Zoom's tells each event, on standard output
const shopify = (secret) =>
  shopifyApi({ apiKey: "unused", apiSecretKey: secret, apiVersion: ApiVersion.October24, hostName: "example.com", isEmbeddedApp: false, logger: { log: () => {} } });
const stripe = new Stripe("sk_test_unused");
const adyen = new hmacValidator();
const formOf = (body) => Object.fromEntries([...new URLSearchParams(body).keys()].map((name) => [name, new URLSearchParams(body).getAll(name)]));
const item = (body) => JSON.parse(body).notificationItems[0].NotificationRequestItem;

const libraries = {
  stripe: {
    sign: (m) => ({ headers: { "stripe-signature": stripe.webhooks.generateTestHeaderString({ payload: m.body, secret: m.secret, timestamp: m.now }) } }),
    verify: (m) => stripe.webhooks.constructEvent(m.body, m.headers["stripe-signature"], m.secret),
  },
  github: {
    sign: async (m) => ({ headers: { "x-hub-signature-256": await octokit.sign(m.secret, m.body) } }),
    verify: (m) => octokit.verify(m.secret, m.body, m.headers["x-hub-signature-256"]),
  },
  svix: {
    sign: (m) => ({
      headers: { "svix-id": m.id, "svix-timestamp": `${m.now}`, "svix-signature": new SvixWebhook(m.secret).sign(m.id, new Date(m.now * 1000), m.body) },
    }),
    verify: (m) => new SvixWebhook(m.secret).verify(m.body, m.headers),
  },
  "standard-webhooks": {
    sign: (m) => ({
      headers: { "webhook-id": m.id, "webhook-timestamp": `${m.now}`, "webhook-signature": new StandardWebhook(m.secret).sign(m.id, new Date(m.now * 1000), m.body) },
    }),
    verify: (m) => new StandardWebhook(m.secret).verify(m.body, m.headers),
  },
  twilio: {
    sign: (m) => ({ headers: { "x-twilio-signature": twilio.getExpectedTwilioSignature(m.secret, m.url, formOf(m.body)) } }),
    verify: (m) =>
      m.url.includes("bodySHA256=")
        ? twilio.validateRequestWithBody(m.secret, m.headers["x-twilio-signature"], m.url, m.body)
        : twilio.validateRequest(m.secret, m.headers["x-twilio-signature"], m.url, formOf(m.body)),
  },
  sendgrid: {
    verify: (m) => {
      const webhook = new EventWebhook();
      return webhook.verifySignature(
        webhook.convertPublicKeyToECDSA(m.secret),
        m.body,
        m.headers["x-twilio-email-event-webhook-signature"],
        m.headers["x-twilio-email-event-webhook-timestamp"],
      );
    },
  },
  discord: {
    verify: (m) => verifyKey(m.body, m.headers["x-signature-ed25519"], m.headers["x-signature-timestamp"], m.secret),
  },
  adyen: {
    sign: (m) => ({ headers: {}, body: m.body.replace('"hmacSignature":""', `"hmacSignature":"${adyen.calculateHmac(item(m.body), m.secret)}"`) }),
    verify: (m) => adyen.validateHMAC(item(m.body), m.secret),
  },
  "adyen-platform": {
    sign: (m) => ({ headers: { hmacsignature: adyen.calculateHmac(m.body, m.secret) } }),
    verify: (m) => adyen.validateHMACSignature(m.secret, m.headers["hmacsignature"], m.body),
  },
  square: {
    verify: (m) =>
      WebhooksHelper.verifySignature({
        requestBody: m.body,
        signatureHeader: m.headers["x-square-hmacsha256-signature"],
        signatureKey: m.secret,
        notificationUrl: m.url,
      }),
  },
  paddle: {
    verify: (m) => new Paddle("unused").webhooks.isSignatureValid(m.body, m.secret, m.headers["paddle-signature"]),
  },
  shopify: {
    sign: async (m) => ({ headers: { "x-shopify-hmac-sha256": await createSHA256HMAC(m.secret, m.body, HashFormat.Base64), "x-shopify-webhook-id": m.id } }),
    verify: async (m) => {
      const headers = { "x-shopify-shop-domain": "shop.example.com", "x-shopify-api-version": "2024-10", ...m.headers };
      const rawRequest = { method: "POST", url: m.url, headers };
      return (await shopify(m.secret).webhooks.validate({ rawBody: m.body, rawRequest, rawResponse: {} })).valid;
    },
  },
  slack: {
    verify: (m) => {
      const headers = { ...m.headers, "x-slack-request-timestamp": Number(m.headers["x-slack-request-timestamp"]) };
      return isValidSlackRequest({ signingSecret: m.secret, body: m.body, headers });
    },
  },
  razorpay: {
    verify: (m) => Razorpay.validateWebhookSignature(m.body, m.headers["x-razorpay-signature"], m.secret),
  },
  zoom: {
    verify: async (m) => {
      const handle = new AwsLambdaReceiver({ webhooksSecretToken: m.secret }).start();
      return (await handle({ headers: m.headers, body: m.body, isBase64Encoded: false }, {})).statusCode === 200;
    },
  },
  linear: {
    verify: (m) => new LinearWebhookClient(m.secret).verify(Buffer.from(m.body), m.headers["linear-signature"], JSON.parse(m.body).webhookTimestamp),
  },
  hubspot: {
    sign: (m) => {
      const timestamp = m.now * 1000;
      const signature = Signature.getSignature("POST", "v3", { clientSecret: m.secret, requestBody: m.body, url: m.url, timestamp });
      return { headers: { "x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": `${timestamp}` } };
    },
    verify: (m) =>
      Signature.isValid({
        signatureVersion: "v3",
        method: "POST",
        url: m.url,
        requestBody: m.body,
        clientSecret: m.secret,
        signature: m.headers["x-hubspot-signature-v3"],
        timestamp: Number(m.headers["x-hubspot-request-timestamp"]),
      }),
  },
};

async function read(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString("utf8"));
}

const input = await read(process.stdin);
const output = { sign: [], verify: [] };
for (const m of input.sign) {
  const sign = libraries[m.preset].sign;
  output.sign.push(sign ? { body: m.body, ...(await sign(m)) } : null);
}
for (const m of input.verify) {
  try {
    const answer = await libraries[m.preset].verify(m);
    output.verify.push(answer !== false);
  } catch {
    output.verify.push(false);
  }
}
process.stdout.write(JSON.stringify(output));
process.exit(0);
