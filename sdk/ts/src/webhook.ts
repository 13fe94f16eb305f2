// Verification of what Kapsel delivers, by Standard Webhooks 1.0.0. On Web Crypto alone, so it runs wherever there is fetch.

/** Why a webhook was refused. */
export type WebhookErrorCode =
  | "missing_header" // webhook-id, webhook-timestamp or webhook-signature is not there
  | "invalid_timestamp" // webhook-timestamp is not whole seconds
  | "too_old"
  | "too_new"
  | "no_match" // no signature is by any of the secrets
  | "too_large";

/** A webhook that must not be believed. Answer it with status 400 or 401. */
export class WebhookError extends Error {
  override readonly name = "WebhookError";
  constructor(
    readonly code: WebhookErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** A webhook that was verified. */
export interface Webhook {
  /** webhook-id, the event's id (evt_…). The same for every attempt: remember it, and each event is dealt with once. */
  readonly id: string;
  /** When this attempt was signed. */
  readonly timestamp: Date;
  /** The exact bytes. */
  readonly body: Uint8Array<ArrayBuffer>;
  /** The bytes as text. */
  text(): string;
  /** The bytes as JSON. */
  json(): unknown;
}

/** How to verify. */
export interface WebhookOptions {
  /** How far webhook-timestamp may be from now, in seconds. Default: 300. */
  readonly toleranceSeconds?: number;
  /** The present. Default: the clock. */
  readonly now?: Date;
  /** Largest body that is read, in bytes. Default: 10 MiB, as much as Kapsel delivers. */
  readonly maxBodyBytes?: number;
}

/** A request as some frameworks give it: its headers, and its body as it came. A body that was parsed already cannot be verified. */
export interface RawWebhook {
  readonly headers: Headers | Record<string, string | string[] | undefined>;
  readonly body: Uint8Array | ArrayBuffer | string;
}

const MAX_SIGNATURES = 32;

/**
 * Verifies a webhook with any of the secrets: whsec_… (v1, HMAC-SHA256) or whpk_… (v1a, Ed25519). Give the old and the new one during a
 * rotation. Throws a WebhookError when it is not Kapsel's, and a TypeError when a secret is malformed.
 */
export async function verifyWebhook(webhook: Request | RawWebhook, secrets: string | readonly string[], options: WebhookOptions = {}): Promise<Webhook> {
  const keys = await Promise.all([secrets].flat().map((secret) => importKey(secret as string)));
  if (keys.length === 0) {
    throw new TypeError("no secret to verify the webhook with");
  }
  const id = headerOf(webhook.headers, "webhook-id");
  const stamp = headerOf(webhook.headers, "webhook-timestamp");
  const signatures = headerOf(webhook.headers, "webhook-signature");
  const timestamp = checkTime(stamp, options);
  const body = await bodyOf(webhook, options.maxBodyBytes ?? 10 << 20);
  const head = new TextEncoder().encode(`${id}.${stamp}.`);
  const signed = new Uint8Array(head.length + body.length);
  signed.set(head);
  signed.set(body, head.length);
  for (const item of signatures.split(" ").slice(0, MAX_SIGNATURES)) {
    const [version, encoded] = split(item, ",");
    const signature = fromBase64(encoded);
    if (signature === undefined) {
      continue;
    }
    for (const { version: wanted, algorithm, key } of keys) {
      // Web Crypto compares in constant time.
      if (version === wanted && (await crypto.subtle.verify(algorithm, key, signature, signed))) {
        return {
          id,
          timestamp,
          body,
          text: () => new TextDecoder().decode(body),
          json: () => JSON.parse(new TextDecoder().decode(body)) as unknown,
        };
      }
    }
  }
  throw new WebhookError("no_match", "no signature of the webhook is by any of the secrets");
}

interface Key {
  readonly version: "v1" | "v1a";
  readonly algorithm: string;
  readonly key: CryptoKey;
}

async function importKey(secret: string): Promise<Key> {
  const publicKey = secret.startsWith("whpk_");
  const bytes = fromBase64(secret.replace(/^wh(sec|pk)_/, ""));
  if (secret.startsWith("whsk_")) {
    throw new TypeError("whsk_… is the sender's private key: verify with the public key, whpk_…");
  }
  if (bytes === undefined || bytes.length === 0 || (publicKey && bytes.length !== 32)) {
    throw new TypeError("a secret is whsec_ and base64, or whpk_ and the base64 of 32 bytes");
  }
  return publicKey
    ? { version: "v1a", algorithm: "Ed25519", key: await crypto.subtle.importKey("raw", bytes, { name: "Ed25519" }, false, ["verify"]) }
    : { version: "v1", algorithm: "HMAC", key: await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]) };
}

function checkTime(stamp: string, options: WebhookOptions): Date {
  if (!/^[0-9]{1,12}$/.test(stamp)) {
    throw new WebhookError("invalid_timestamp", "webhook-timestamp is not a number of seconds");
  }
  const seconds = Number(stamp);
  const age = (options.now ?? new Date()).getTime() / 1000 - seconds;
  const tolerance = options.toleranceSeconds ?? 300;
  if (age > tolerance) {
    throw new WebhookError("too_old", `the webhook was signed ${Math.round(age)} seconds ago, more than ${tolerance}`);
  }
  if (-age > tolerance) {
    throw new WebhookError("too_new", `the webhook was signed ${Math.round(-age)} seconds from now: compare the clocks`);
  }
  return new Date(seconds * 1000);
}

function headerOf(headers: RawWebhook["headers"], name: string): string {
  let value: string | null | undefined;
  if (isHeaders(headers)) {
    value = headers.get(name);
  } else {
    const found = Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1];
    value = Array.isArray(found) ? found[0] : found;
  }
  if (!value) {
    throw new WebhookError("missing_header", `the webhook has no header ${name}`);
  }
  return value;
}

/** Also of those that are not the global one: of other implementations of fetch, and other realms. */
function isHeaders(headers: RawWebhook["headers"]): headers is Headers {
  return typeof headers["get" as keyof typeof headers] === "function";
}

async function bodyOf(webhook: Request | RawWebhook, max: number): Promise<Uint8Array<ArrayBuffer>> {
  const { body } = webhook;
  let bytes: Uint8Array<ArrayBuffer>;
  if (typeof body === "string") {
    bytes = new TextEncoder().encode(body);
  } else if (body instanceof Uint8Array) {
    bytes = new Uint8Array(body);
  } else if (body instanceof ArrayBuffer) {
    bytes = new Uint8Array(body);
  } else if ("bodyUsed" in webhook || typeof (body as ReadableStream | undefined)?.getReader === "function") {
    return readAll(webhook as Request, max);
  } else {
    throw new TypeError("the webhook's body is not there, or was parsed: give the bytes as they came, in Express by express.raw({ type: () => true })");
  }
  if (bytes.length > max) {
    throw tooLarge(max);
  }
  return bytes;
}

/** Reads a stream up to a bound, whatever its Content-Length claims. */
async function readAll(request: Request, max: number): Promise<Uint8Array<ArrayBuffer>> {
  if (request.bodyUsed) {
    throw new TypeError("the request's body was read already: verify before anything reads it");
  }
  const chunks: Uint8Array[] = [];
  let length = 0;
  const reader = request.body?.getReader();
  for (;;) {
    const chunk = await reader?.read();
    if (chunk === undefined || chunk.done) {
      break;
    }
    length += chunk.value.length;
    if (length > max) {
      await reader?.cancel();
      throw tooLarge(max);
    }
    chunks.push(chunk.value);
  }
  const all = new Uint8Array(length);
  let offset = 0;
  for (const chunk of chunks) {
    all.set(chunk, offset);
    offset += chunk.length;
  }
  return all;
}

function tooLarge(max: number): WebhookError {
  return new WebhookError("too_large", `the webhook's body is larger than ${max} bytes`);
}

function split(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  } catch {
    return undefined;
  }
}
