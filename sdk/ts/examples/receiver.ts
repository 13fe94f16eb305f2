// A destination: takes webhooks, verifies that they are Kapsel's, and answers. KAPSEL_SECRET holds whsec_… or whpk_…, or several with
// commas between them.
import { createServer } from "node:http";
import { buffer } from "node:stream/consumers";
import { verifyWebhook, WebhookError } from "@kapsel-dev/sdk/webhook";

const secrets = (process.env["KAPSEL_SECRET"] ?? "").split(",");
const server = createServer(async (request, response) => {
  try {
    const webhook = await verifyWebhook({ headers: request.headers, body: await buffer(request) }, secrets);
    console.log(webhook.id, webhook.text());
    response.writeHead(204).end();
  } catch (error) {
    response.writeHead(error instanceof WebhookError ? 401 : 500).end();
  }
});
server.listen(Number(process.env["PORT"] ?? 3000), "127.0.0.1", () => console.log("listening", JSON.stringify(server.address())));
