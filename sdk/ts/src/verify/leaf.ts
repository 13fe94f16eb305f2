// The leaf, decoded for people: the same text as the Go verifier's DescribeLeaf, field by field.

import { type DescEnum, fromBinary } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";

import {
  type Attempt, type DeadLetter, DeadLetterReasonSchema, type Erasure, FailureSchema, type KeyRotation, type Leaf, LeafSchema, OutcomeSchema,
} from "../gen/kapsel/leaf/v1/leaf_pb.js";
import { Refusal, toHex } from "./bytes.js";
import { openRotation } from "./rotation.js";
import { checkWire } from "./wire.js";

const maxInteger = Number.MAX_SAFE_INTEGER;

/** An attempt, a dead letter, an erasure or a hand-over of keys, as the field "attempt" of a package has it. */
export type Description = Record<string, string | number | boolean | number[]>;

export function decodeLeaf(bytes: Uint8Array): Leaf {
  let leaf: Leaf;
  try {
    leaf = fromBinary(LeafSchema, bytes);
  } catch {
    throw new Refusal("the leaf is not a kapsel.leaf.v1.Leaf");
  }
  checkWire(LeafSchema, bytes);
  return leaf;
}

export async function describe(leaf: Leaf): Promise<Description> {
  const nonce = bytes("nonce", leaf.nonce, 16);
  switch (leaf.kind.case) {
    case "attempt":
      return present(attempt(leaf.kind.value, nonce));
    case "deadLetter":
      return present(deadLetter(leaf.kind.value, nonce));
    case "erasure":
      return present(erasure(leaf.kind.value, nonce));
    case "keyRotation":
      return rotation(leaf.kind.value, nonce);
    default:
      throw new Refusal("the leaf holds neither an attempt, nor a dead letter, nor an erasure, nor a hand-over of keys");
  }
}

type Fields = Record<string, string | number | boolean | number[] | undefined>;

function present(fields: Fields): Description {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Description;
}

function attempt(a: Attempt, nonce: string): Fields {
  return {
    kind: "attempt",
    attempt_id: id("att", a.attemptId),
    delivery_id: id("dlv", a.deliveryId),
    event_id: id("evt", a.eventId),
    tenant_id: id("tnt", a.tenantId),
    endpoint_id: id("ep", a.endpointId),
    destination_id: id("dst", a.destinationId),
    number: a.number,
    payload_sha256: bytes("payload_sha256", a.payloadSha256, 32),
    payload_bytes: integer("payload_bytes", a.payloadBytes),
    url: a.url,
    received_at: time("received_at", a.receivedAt),
    started_at: a.startedAt && time("started_at", a.startedAt),
    duration_ns: a.duration && nanoseconds(a.duration),
    outcome: word("outcome", OutcomeSchema, a.outcome),
    failure: a.failure === 0 ? undefined : word("failure", FailureSchema, a.failure),
    status_code: a.statusCode === 0 ? undefined : status(a.statusCode),
    request_headers_sha256: optionalHash("request_headers_sha256", a.requestHeadersSha256),
    response_sha256: optionalHash("response_sha256", a.responseSha256),
    response_bytes: integer("response_bytes", a.responseBytes),
    response_truncated: a.responseTruncated,
    node_id: id("nod", a.nodeId),
    intake_verification: a.intakeVerification,
    late: a.late,
    nonce,
  };
}

function deadLetter(d: DeadLetter, nonce: string): Fields {
  return {
    kind: "dead_letter",
    delivery_id: d.deliveryId.length > 0 ? id("dlv", d.deliveryId) : undefined,
    event_id: id("evt", d.eventId),
    tenant_id: id("tnt", d.tenantId),
    endpoint_id: id("ep", d.endpointId),
    destination_id: d.destinationId.length > 0 ? id("dst", d.destinationId) : undefined,
    reason: word("reason", DeadLetterReasonSchema, d.reason),
    attempts: d.attempts,
    payload_sha256: bytes("payload_sha256", d.payloadSha256, 32),
    payload_bytes: integer("payload_bytes", d.payloadBytes),
    received_at: time("received_at", d.receivedAt),
    dead_at: time("dead_at", d.deadAt),
    diagnosis_sha256: bytes("diagnosis_sha256", d.diagnosisSha256, 32),
    node_id: id("nod", d.nodeId),
    nonce,
  };
}

function erasure(e: Erasure, nonce: string): Fields {
  const indexes = e.leafIndexes.map((index) => integer("leaf_indexes", index));
  if (indexes.some((index, i) => i > 0 && index <= indexes[i - 1]!)) throw new Refusal("the leaf's leaf_indexes are not ascending");
  return {
    kind: "erasure",
    erasure_id: id("att", e.erasureId),
    event_id: e.eventId.length > 0 ? id("evt", e.eventId) : undefined,
    tenant_id: id("tnt", e.tenantId),
    leaf_indexes: indexes,
    erased_at: time("erased_at", e.erasedAt),
    reason_sha256: optionalHash("reason_sha256", e.reasonSha256),
    node_id: id("nod", e.nodeId),
    nonce,
  };
}

async function rotation(m: KeyRotation, nonce: string): Promise<Description> {
  const r = await openRotation(m);
  return {
    kind: "key_rotation",
    origin: r.origin,
    old_key: r.oldKey,
    new_key: r.newKey,
    rotated_at: time("rotated_at", m.rotatedAt),
    old_key_retires_at: time("old_key_retires_at", m.oldKeyRetiresAt),
    old_signature: toHex(m.oldSignature),
    new_signature: toHex(m.newSignature),
    nonce,
  };
}

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";

function id(prefix: string, value: Uint8Array): string {
  let n = BigInt(`0x${bytes(`${prefix} id`, value, 16)}`);
  let text = "";
  for (let i = 0; i < 26; i++) {
    text = alphabet[Number(n & 31n)]! + text;
    n >>= 5n;
  }
  return `${prefix}_${text}`;
}

function bytes(name: string, value: Uint8Array, size: number): string {
  if (value.length !== size) throw new Refusal(`the leaf's ${name} has ${value.length} bytes: want ${size}`);
  return toHex(value);
}

const optionalHash = (name: string, value: Uint8Array): string | undefined => (value.length === 0 ? undefined : bytes(name, value, 32));

function integer(name: string, value: bigint): number {
  if (value > BigInt(maxInteger)) throw new Refusal(`the leaf's ${name} is ${value}: at most ${maxInteger}`);
  return Number(value);
}

function status(value: number): number {
  if (value > 999) throw new Refusal(`the leaf's status_code is ${value}: at most 999`);
  return value;
}

/** Spells an enum's value, such as "worker_lost". */
function word(name: string, schema: DescEnum, value: number): string {
  const found = schema.value[value];
  if (!found || value === 0) throw new Refusal(`the leaf's ${name} is ${value}, which this version does not know`);
  return found.localName.toLowerCase();
}

function time(name: string, value: Timestamp | undefined): string {
  if (!value || value.seconds < -62135596800n || value.seconds > 253402300799n || value.nanos < 0 || value.nanos > 999_999_999) {
    throw new Refusal(`the leaf's ${name} is not a time`);
  }
  const second = new Date(Number(value.seconds) * 1000).toISOString().slice(0, 19);
  return `${second}.${String(value.nanos).padStart(9, "0")}Z`;
}

function nanoseconds(value: Duration): number {
  const total = value.seconds * 1_000_000_000n + BigInt(value.nanos);
  if (value.seconds < 0n || value.nanos < 0 || value.nanos > 999_999_999 || total > BigInt(maxInteger)) {
    throw new Refusal("the leaf's duration is not possible");
  }
  return Number(total);
}
