import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { resume } from "../src/index.js";

const backoff = { initialMs: 1, maxMs: 2 };

/** A server of the numbers to 10 that breaks after each third message, and tells the last one again on resuming. */
function numbers(error: () => Error | undefined) {
  const tokens: (number | undefined)[] = [];
  return {
    tokens,
    finite: true,
    async *open(token: number | undefined) {
      tokens.push(token);
      for (let i = (token ?? 0) + 1, sent = 0; i <= 10; i++, sent++) {
        if (sent === 3) {
          const e = error();
          if (e) throw e;
        }
        yield i;
      }
    },
    tokenOf: (n: number) => n,
  };
}

test("a stream goes on where it was broken off, without gap or repeat", async () => {
  const stream = numbers(() => new TypeError("network error"));
  const seen: number[] = [];
  for await (const n of resume(stream, { backoff })) seen.push(n);
  assert.deepEqual(seen, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.deepEqual(stream.tokens, [undefined, 3, 6, 9]);
});

test("a refusal ends it", async () => {
  const stream = numbers(() => new ConnectError("no", Code.PermissionDenied));
  await assert.rejects(async () => {
    for await (const _ of resume(stream, { backoff }));
  }, /no/);
});

test("tries in a row are bounded when asked", async () => {
  let tries = 0;
  const stream = {
    // biome-ignore lint: it never yields
    async *open(): AsyncGenerator<number> {
      tries++;
      throw new ConnectError("away", Code.Unavailable);
    },
    tokenOf: () => undefined,
  };
  await assert.rejects(async () => {
    for await (const _ of resume(stream, { backoff, maxAttempts: 3 }));
  }, /away/);
  assert.equal(tries, 3);
});

test("a signal ends it without an error, also during a wait", async () => {
  const controller = new AbortController();
  const stream = { ...numbers(() => new ConnectError("away", Code.Unavailable)), finite: false };
  let seen = 0;
  for await (const _ of resume(stream, { signal: controller.signal, backoff: { initialMs: 60_000, maxMs: 60_000 }, onReconnect: () => setTimeout(() => controller.abort(), 1) })) seen++;
  assert.equal(seen, 3);
});

test("a loop over what has an end cannot take a part for the whole", async () => {
  const away = new Error("enough");
  for (const last of [3, 10]) {
    const controller = new AbortController();
    let seen = 0;
    await assert.rejects(async () => {
      for await (const n of resume(numbers(() => undefined), { signal: controller.signal, backoff })) {
        seen++;
        if (n === last) controller.abort(away);
      }
    }, away);
    assert.equal(seen, last);
  }
});
