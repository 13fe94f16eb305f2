import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { resolve } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

const chromium = "/usr/bin/chromium";
const key = "log.example.com/log/1+4a5917dc+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";
const proof = resolve("../go/verify/testdata/attempt.proof.json");

test("the single-file verifier answers in a browser, from a file and without a network", {
  skip: existsSync(chromium) ? false : `there is no ${chromium}: apt-get install chromium`,
}, async () => {
  const { chromium: engine } = await import("playwright-core");
  const browser = await engine.launch({
    executablePath: chromium,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  try {
    const context = await browser.newContext({ offline: true });
    const page = await context.newPage();
    const requests: string[] = [];
    const errors: string[] = [];
    page.on("request", (request) => requests.push(request.url()));
    page.on("pageerror", (error) => errors.push(error.message));
    const url = `file://${resolve("verifier.html")}`;
    await page.goto(url);
    const answer = async (): Promise<string> => {
      await page.waitForSelector("#result .verdict");
      return (await page.textContent("#result"))!;
    };
    await page.setInputFiles("#file", proof);
    assert.match(await answer(), /^Consistent, but the key is not checked/);
    await page.fill("#key", key);
    await page.waitForSelector("#result .verdict.full");
    assert.match(await answer(), /^Full proof.*https:\/\/shop\.example\.com\/hooks\?a=1&b=<2>/s);
    const changed = `${mkdtempSync(`${tmpdir()}/kapsel-`)}/changed.json`;
    writeFileSync(changed, readFileSync(proof, "utf8").replace("succeeded", "<img src=x onerror=alert(1)>"));
    await page.setInputFiles("#file", changed);
    await page.waitForSelector("#result .verdict.refused");
    assert.match(await answer(), /^Refused.*attempt is not what the leaf says/s);
    assert.equal(await page.locator("#result img").count(), 0);
    await page.fill("#key", "no key");
    await page.waitForSelector("#result :text('could not be made')");
    // A file that is dropped anywhere on the page is taken.
    await page.fill("#key", key);
    const data = await page.evaluateHandle((text) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([text], "dropped.json"));
      return transfer;
    }, readFileSync(proof, "utf8"));
    await page.dispatchEvent("#drop", "drop", { dataTransfer: data });
    await page.waitForSelector("#result .verdict.full");
    await page.setInputFiles("#file", proof.replace(".proof.json", ".tlog-proof"));
    await page.waitForSelector("#result :text('C2SP tlog-proof, version 1')");
    assert.match(await answer(), /^Full proof.*https:\/\/shop\.example\.com\/hooks/s);
    await page.setInputFiles("#file", proof.replace("attempt", "key_rotation"));
    await page.waitForSelector("#result :text('new key')");
    assert.match(await answer(), /^Full proof/);
    // An archive, whole and with a package left out; and while another key is typed.
    const tar = readFileSync("../go/verify/testdata/archive.tar");
    const [archive, lacking] = ["archive.tar.gz", "lacking.tar.gz"].map((name) => `${mkdtempSync(`${tmpdir()}/kapsel-`)}/${name}`) as [string, string];
    writeFileSync(archive, gzipSync(tar));
    const second = tar.indexOf("proofs/0000000000000005");
    writeFileSync(lacking, gzipSync(Buffer.concat([tar.subarray(0, second), tar.subarray(tar.indexOf("proofs/0000000000000012"))])));
    await page.setInputFiles("#file", archive);
    await page.waitForSelector("#result :text('What the archive holds')");
    assert.match(await answer(), /^Full proof.*each of the 3 records.*40 leaves/s);
    await page.fill("#key", "");
    await page.waitForSelector("#result .verdict.open :text('the key is not checked')");
    await page.fill("#key", key);
    await page.waitForSelector("#result .verdict.full");
    await page.setInputFiles("#file", lacking);
    await page.waitForSelector("#result .verdict.refused");
    assert.match(await answer(), /^Refused.*counts 3 packages, and there are 2/s);
    // A browser whose WebCrypto has no Ed25519.
    await page.evaluate("crypto.subtle.importKey = () => Promise.reject(new DOMException('', 'NotSupportedError'))");
    for (const [file, verdict] of [[proof, ".full"], [changed, ".refused"], [archive, ".full"]] as const) {
      await page.setInputFiles("#file", file);
      await page.waitForSelector(`#result .verdict${verdict}`);
    }
    assert.deepEqual(requests, [url]);
    assert.deepEqual(errors, []);
  } finally {
    await browser.close();
  }
});
