// Verifies webhooks as receivers do. Standard input: a list of {headers, body (base64), secrets}. Standard output: a list of what came of it.
import { text } from "node:stream/consumers";
import { verifyWebhook } from "@kapsel-dev/sdk/webhook";

const answers = [];
for (const { headers, body, secrets } of JSON.parse(await text(process.stdin))) {
  answers.push(await verifyWebhook({ headers, body: Buffer.from(body, "base64") }, secrets).then(({ id }) => id, (error) => error.code ?? String(error)));
}
console.log(JSON.stringify(answers));
