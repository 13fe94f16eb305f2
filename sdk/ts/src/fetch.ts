/**
 * A fetch that ends with the signal of its request. That of Node.js forgets the signal once it has collected garbage
 * (https://github.com/nodejs/undici/issues/3644): a server that is silent would be listened to for ever.
 */
export function endingWithSignal(fetch: typeof globalThis.fetch): typeof globalThis.fetch {
  return async (input, init) => {
    const signal = init?.signal;
    if (!signal) {
      return fetch(input, init);
    }
    const response = await answerUntil(signal, fetch(input, init));
    return response.body ? new Response(bodyUntil(signal, response.body), response) : response;
  };
}

function answerUntil(signal: AbortSignal, answer: Promise<Response>): Promise<Response> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      reject(signal.reason);
      answer.then((response) => response.body?.cancel(signal.reason)).catch(() => undefined);
    };
    signal.addEventListener("abort", abort, { once: true });
    answer.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

function bodyUntil(signal: AbortSignal, source: ReadableStream<Uint8Array<ArrayBuffer>>): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reader = source.getReader();
  const abort = () => void reader.cancel(signal.reason).catch(() => undefined);
  const ended = () => signal.removeEventListener("abort", abort);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) {
    abort();
  }
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        signal.throwIfAborted();
        if (!done) {
          controller.enqueue(value);
          return;
        }
        controller.close();
      } catch (error) {
        controller.error(error);
      }
      ended();
    },
    async cancel(reason) {
      ended();
      await reader.cancel(reason);
    },
  });
}
