import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { endingWithSignal } from "../src/fetch.js";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;
const endingFetch = endingWithSignal(fetch);

async function serve(t: TestContext, answer: RequestListener): Promise<string> {
  const server = createServer(answer).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close().closeAllConnections());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

/** Aborts after what fetch holds weakly is gone. */
async function abortLater(controller: AbortController): Promise<void> {
  for (let i = 0; i < 5; i++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    collectGarbage();
  }
  controller.abort(new Error("enough"));
}

test("an answer is passed on as it came", async (t) => {
  const url = await serve(t, (_, response) => response.writeHead(418, { "X-Some": "thing" }).end("short"));
  const response = await endingFetch(url, { signal: new AbortController().signal });
  assert.equal(response.status, 418);
  assert.equal(response.headers.get("X-Some"), "thing");
  assert.equal(await response.text(), "short");
});

test("a silent body ends with its signal, also after garbage was collected, and so does the connection", async (t) => {
  let closed: Promise<unknown> | undefined;
  const url = await serve(t, (_, response) => {
    closed = once(response, "close");
    response.writeHead(200).write("first");
  });
  const controller = new AbortController();
  const response = await endingFetch(url, { signal: controller.signal });
  const reader = response.body!.getReader();
  assert.equal(new TextDecoder().decode((await reader.read()).value), "first");
  const next = assert.rejects(reader.read(), /enough/);
  await abortLater(controller);
  await next;
  await closed;
});

test("a server that never answers is left with the signal", async (t) => {
  const url = await serve(t, () => {});
  const controller = new AbortController();
  const answer = assert.rejects(endingFetch(url, { signal: controller.signal }), /enough/);
  await abortLater(controller);
  await answer;
});

test("a reader that stops ends the connection", async (t) => {
  let closed: Promise<unknown> | undefined;
  const url = await serve(t, (_, response) => {
    closed = once(response, "close");
    response.writeHead(200).write("first");
  });
  const response = await endingFetch(url, { signal: new AbortController().signal });
  await response.body!.cancel();
  await closed;
});

test("a signal that was aborted before is answered at once", async (t) => {
  const url = await serve(t, (_, response) => response.end());
  await assert.rejects(endingFetch(url, { signal: AbortSignal.abort(new Error("before")) }), /before/);
});
