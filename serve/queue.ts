/** Shares the device: one request at a time, some in line behind, no others. */

/** The line is as long as it may be. */
export class QueueFullError extends Error {
  override readonly name = "QueueFullError";

  /** @param seconds after which it is worth another try */
  constructor(readonly seconds: number) {
    super("Too many requests wait already");
  }
}

/** A place in the line, until it is disposed. */
export interface Place extends Disposable {
  /** Number of those that come before. */
  readonly ahead: number;
  /** Resolves when it is this one's turn. Rejects with the signal's reason if that comes first. */
  turn(signal: AbortSignal): Promise<void>;
}

/** A line in which one works and at most `limit` wait. */
export class Queue {
  /** The first one works. */
  #line: { readonly place: Place; readonly start: () => void }[] = [];
  /** Mean seconds of a turn, the later ones counting more; 1 before the first. */
  #turnSeconds = 1;

  constructor(readonly limit: number) {}

  get running(): number {
    return Math.min(1, this.#line.length);
  }

  get waiting(): number {
    return Math.max(0, this.#line.length - 1);
  }

  /** Takes the last place. @throws {QueueFullError} if as many wait as may */
  enter(): Place {
    if (this.#line.length > this.limit) {
      throw new QueueFullError(Math.max(1, Math.ceil(this.#turnSeconds * this.#line.length)));
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    let startedAt: number | undefined;
    const start = () => {
      startedAt = performance.now();
      resolve();
    };
    const indexOf = () => this.#line.findIndex(({ place: other }) => other === place);
    const place: Place = {
      get ahead() {
        return Math.max(0, indexOf());
      },
      turn: (signal) => orAbort(promise, signal),
      [Symbol.dispose]: () => {
        const index = indexOf();
        if (index < 0) return;
        this.#line.splice(index, 1);
        if (startedAt === undefined) return;
        this.#turnSeconds += 0.3 * ((performance.now() - startedAt) / 1000 - this.#turnSeconds);
        this.#line[0]?.start();
      },
    };
    this.#line.push({ place, start });
    if (this.#line.length === 1) start();
    return place;
  }
}

/** The promise, or a rejection with the signal's reason if that comes first. */
export async function orAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
