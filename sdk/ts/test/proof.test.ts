import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { ErrorInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { AttestationService, createKapsel, getVerifiedProofs, ProofError } from "../src/index.js";
import { maxPackageBytes } from "../src/verify/index.js";

const key = "log.example.com/log/1+4a5917dc+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";
const event = "evt_030g2gc1r81450p30d1r7h048j";
const attempt = "att_01081g81860w40j2gb1g6gw3rg";
const other = "evt_00000000000000000000000000";
const read = (name: string) => new Uint8Array(readFileSync(`../go/verify/testdata/${name}.proof.json`));
const forge = (data: Uint8Array) => new TextEncoder().encode(new TextDecoder().decode(data).replace("succeeded", "failed"));

/** A server that answers these packages, after some answers that the log is not sealed. */
function prover(packages: Uint8Array[], unsealed = 0, called: (n: number) => void = () => {}) {
  let calls = 0;
  const transport = createRouterTransport(({ service }) => {
    service(AttestationService, {
      getProofPackage() {
        called(++calls);
        if (calls <= unsealed) {
          const value = { reason: "NOT_SEALED", domain: "kapsel.dev" };
          throw new ConnectError("not sealed", Code.FailedPrecondition, undefined, [{ desc: ErrorInfoSchema, value }]);
        }
        return { packages: packages.map((json) => ({ json })) };
      },
    });
  });
  return createKapsel({ transport }).attestation;
}

test("what comes out is proved, and is of what was asked for", async () => {
  const packages = [read("attempt"), read("dead_letter")];
  const proofs = await getVerifiedProofs(prover(packages), event, { trustedKeys: [key] });
  assert.deepEqual(proofs.map(({ json }) => json), packages);
  assert.ok(proofs.every(({ report }) => report.full));
  await getVerifiedProofs(prover([read("attempt")]), attempt, { trustedKeys: [key] });
});

test("the proofs of a server that lies are refused", async () => {
  for (const [packages, id, message] of [
    [[read("attempt")], other, /does not name evt_0000/],
    [[read("dead_letter")], attempt, /does not name att_/],
    [[read("attempt"), forge(read("attempt"))], event, /proof 2 of 2 of evt_.*: leaf: /],
    [[read("attempt").slice(0, -2)], event, /format: /],
    [[new Uint8Array(maxPackageBytes + 1)], event, /format: /],
  ] as const) {
    await assert.rejects(getVerifiedProofs(prover([...packages]), id, { trustedKeys: [key] }), (error: unknown) => {
      assert.ok(error instanceof ProofError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
  await assert.rejects(getVerifiedProofs(prover([]), event, { trustedKeys: [key] }), /answered no proof/);
  await assert.rejects(getVerifiedProofs(prover([read("attempt")]), event, { trustedKeys: [] }), /give the log's public key/);
  await assert.rejects(getVerifiedProofs(prover([read("attempt")]), event, { trustedKeys: ["no key"] }), /the trusted key "no key"/);
  await assert.rejects(getVerifiedProofs(prover([read("attempt")]), "dst_1", { trustedKeys: [key] }), /is not the id of an event/);
});

test("proofs are waited for, until the signal is aborted", async () => {
  let calls = 0;
  await getVerifiedProofs(prover([read("attempt")], 2, (n) => (calls = n)), event, { trustedKeys: [key] });
  assert.equal(calls, 3);
  const controller = new AbortController();
  const away = new Error("enough");
  const never = prover([], Infinity, (n) => n === 2 && controller.abort(away));
  await assert.rejects(getVerifiedProofs(never, event, { trustedKeys: [key], signal: controller.signal }), away);
});
