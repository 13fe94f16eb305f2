/** How long to wait between tries. */
export interface Backoff {
  /** Longest wait before the second try, in milliseconds; it doubles with each try. */
  readonly initialMs: number;
  /** Longest wait of all, in milliseconds. */
  readonly maxMs: number;
}

/**
 * The wait before try n + 1, after n tries that failed: full jitter, so that clients that failed together do not come back together,
 * and not less than the server asked for.
 */
export function waitAfter(n: number, backoff: Backoff, askedMs = 0, random: () => number = Math.random): number {
  const bound = Math.min(backoff.maxMs, backoff.initialMs * 2 ** Math.min(n - 1, 30));
  return askedMs + random() * bound;
}

/** Waits, and rejects with the signal's reason when it is aborted first. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
}
