import assert from "node:assert/strict";
import { test } from "node:test";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { EventService } from "../src/index.js";

test("the generated services know which rpcs have no side effects", () => {
  assert.equal(EventService.method.getEvent.idempotency, MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS);
  assert.notEqual(EventService.method.replayEvent.idempotency, MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS);
});
