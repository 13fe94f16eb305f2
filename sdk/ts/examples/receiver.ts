// A destination: takes webhooks, verifies that they are Kapsel's, and answers. KAPSEL_SECRET holds whsec_… or whpk_…, or several with
// commas between them.
import { createServer, type IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { verifyWebhook, WebhookError } from "@kapsel-dev/sdk/webhook";

const secrets = (process.env["KAPSEL_SECRET"] ?? "").split(",");
const server = createServer(async (request, response) => {
  try {
    const webhook = await verifyWebhook(asRequest(request), secrets);
    console.log(webhook.id, webhook.text());
    response.writeHead(204).end();
  } catch (error) {
    response.writeHead(error instanceof WebhookError ? 401 : 500).end();
  }
});
server.listen(Number(process.env["PORT"] ?? 3000), "127.0.0.1", () => console.log("listening", JSON.stringify(server.address())));

/** Its body is read up to the bound of verifyWebhook, and only when it can be a webhook by its headers. */
function asRequest(message: IncomingMessage): Request {
  const body = Readable.toWeb(message) as ReadableStream<Uint8Array>;
  return new Request("http://receiver.invalid", { method: "POST", headers: message.headers as Record<string, string>, body, duplex: "half" } as RequestInit);
}
