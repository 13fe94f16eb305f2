// How protobuf messages are spelled, as far as leaves need it.

import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";

import { Refusal } from "./bytes.js";

const varint = 0;
const lengthDelimited = 2;

/**
 * Refuses a leaf that another protobuf library could read otherwise than this one: with a field that is not of the schema or not of its wire
 * type, which some pass over and some decode; with a number that has more bytes than it needs, or with a message whose fields do not end where
 * it ends. So a leaf says the same to every verifier.
 */
export function checkWire(desc: DescMessage, data: Uint8Array): void {
  const numbers = new Numbers(data);
  while (!numbers.done()) {
    const tag = numbers.next();
    const kind = tag % 8;
    const field = desc.fields.find(({ number }) => number === (tag - kind) / 8);
    if (!field) throw new Refusal(`the leaf has a field in ${desc.typeName} that this version does not know`);
    const packed = field.fieldKind === "list" && kind === lengthDelimited;
    if (kind !== wireType(field) && !packed) throw new Refusal(`the leaf has its field ${field.name} in a form that is not the field's`);
    const value = numbers.next();
    if (kind === varint) continue;
    const inside = numbers.skip(value);
    if (field.message) {
      checkWire(field.message, inside);
    } else if (packed) {
      const items = new Numbers(inside);
      while (!items.done()) items.next();
    }
  }
}

/** The wire type of a field's values. A leaf has only these two, and its only list is one of numbers. */
function wireType(field: DescField): number {
  const text = field.fieldKind === "scalar" && (field.scalar === ScalarType.BYTES || field.scalar === ScalarType.STRING);
  return field.fieldKind === "message" || text ? lengthDelimited : varint;
}

/** Reads numbers in their shortest form. */
class Numbers {
  #at = 0;

  constructor(private readonly data: Uint8Array) {}

  done(): boolean {
    return this.#at === this.data.length;
  }

  /** The next number; not exact from 2^53 on, which is more than any tag or length. */
  next(): number {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      const byte = this.data[this.#at++];
      if (byte === undefined || (byte === 0 && i > 0) || (byte > 1 && i === 9)) break;
      value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) return value;
    }
    throw misspelled();
  }

  skip(length: number): Uint8Array {
    if (length > this.data.length - this.#at) throw misspelled();
    this.#at += length;
    return this.data.subarray(this.#at - length, this.#at);
  }
}

const misspelled = (): Refusal => new Refusal("the leaf is not spelled as protobuf spells it");
