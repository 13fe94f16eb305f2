// Listens to an endpoint until standard input ends: listen.mjs URL KEY ENDPOINT APP. It answers the first attempt of a "teapot"
// with 418, says of that of "nobody" that nothing listens, and forwards all others. Writes a line of JSON for each session that it is told of.
import { Code, ConnectError } from "@connectrpc/connect";
import { createKapsel, Failure, listenDeliveries } from "@kapsel-dev/sdk";

const [baseUrl, apiKey, endpoint, app] = process.argv.slice(2);
const kapsel = createKapsel({ baseUrl, apiKey });
const controller = new AbortController();
process.stdin.on("end", () => controller.abort()).resume();
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const options = { signal: controller.signal, backoff: { initialMs: 50, maxMs: 500 }, onSession: ({ id }) => say({ session: id }) };

function deal(incoming) {
  const { payload, number } = incoming.delivery;
  switch (number === 1 && new TextDecoder().decode(payload)) {
    case "teapot":
      return incoming.answer(418, new TextEncoder().encode("short and stout"));
    case "nobody":
      return incoming.fail(Failure.CONNECT, "nothing listens");
  }
  return incoming.forward(app);
}

for await (const incoming of listenDeliveries(kapsel.listen, { endpointIds: [endpoint] }, options)) {
  deal(incoming).catch((error) => {
    // The server is away, or was, and does not know the attempt any more: it comes again.
    const gone = [Code.Unavailable, Code.NotFound, Code.FailedPrecondition, Code.Unknown, Code.Aborted];
    if (!gone.includes(ConnectError.from(error).code)) say({ error: String(error) });
  });
}
