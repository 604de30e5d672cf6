import type { Communicator } from "../../distributed/communicator.ts";

/**
 * Plays the ranks of a job in one process: calls `work` once for each, all at the same time, and returns their results.
 * A rank that waits for one that has ended or failed is an error, not a hang.
 */
export async function playRanks<T>(size: number, work: (ranks: Communicator) => Promise<T>): Promise<T[]> {
  const meeting = new Meeting(size);
  const results = await Promise.all(Array.from({ length: size }, async (_, rank) => {
    try {
      return await work(communicator(meeting, rank));
    } finally {
      meeting.leave(rank);
    }
  }));
  meeting.checkLetters();
  return results;
}

/** Rounds in which each rank lays something down and takes what all have laid down, and letters from one to another. */
class Meeting {
  #laid: unknown[] = [];
  #round = Promise.withResolvers<unknown[]>();
  readonly #left = new Set<number>();
  /** Between two ranks, `from,to`: what was sent and not received, or the other way round. */
  readonly #letters = new Map<string, Uint8Array[]>();
  readonly #awaited = new Map<string, PromiseWithResolvers<Uint8Array>>();

  constructor(readonly size: number) {
    this.#round.promise.catch(() => {});
  }

  send(from: number, to: number, bytes: Uint8Array): void {
    const way = `${from},${to}`;
    const awaited = this.#awaited.get(way);
    this.#awaited.delete(way);
    if (awaited) awaited.resolve(bytes);
    else this.#letters.set(way, [...this.#letters.get(way) ?? [], bytes]);
  }

  async receive(from: number, to: number): Promise<Uint8Array> {
    const way = `${from},${to}`;
    const letter = this.#letters.get(way)?.shift();
    if (letter) return letter;
    if (this.#left.has(from)) {
      throw new Error(`rank ${to} waits for a message of rank ${from}, which has ended`);
    }
    const awaited = Promise.withResolvers<Uint8Array>();
    this.#awaited.set(way, awaited);
    return await awaited.promise;
  }

  /** @throws {Error} if something was sent that nobody has received */
  checkLetters(): void {
    for (const [way, letters] of this.#letters) {
      if (letters.length > 0) {
        const [from, to] = way.split(",");
        throw new Error(`rank ${to} has not received ${letters.length} messages of rank ${from}`);
      }
    }
  }

  async meet<T>(rank: number, thing: T): Promise<T[]> {
    if (this.#left.size > 0) throw new Error(`rank ${rank} waits for a rank that has ended`);
    const { promise, resolve } = this.#round;
    this.#laid[rank] = thing;
    if (Object.keys(this.#laid).length === this.size) {
      const laid = this.#laid;
      this.#laid = [];
      this.#round = Promise.withResolvers();
      this.#round.promise.catch(() => {});
      resolve(laid);
    }
    return await promise as T[];
  }

  leave(rank: number): void {
    this.#left.add(rank);
    for (const [way, awaited] of this.#awaited) {
      if (way.startsWith(`${rank},`)) {
        awaited.reject(new Error(`rank ${rank} has ended while another waits for it`));
      }
    }
    if (Object.keys(this.#laid).length > 0) {
      this.#round.reject(new Error("a rank has ended while others wait for it"));
    }
  }
}

function communicator(meeting: Meeting, rank: number): Communicator {
  const { size } = meeting;
  const sum = async (values: Float32Array) => {
    const all = await meeting.meet(rank, values.slice());
    return all.slice(1).reduce((total, other) => total.map((value, i) => value + other[i]!), all[0]!);
  };
  return {
    rank,
    size,
    allReduce: async (values) => values.set(await sum(values)),
    reduceScatter: async (values) => {
      const part = values.length / size;
      if (!Number.isInteger(part)) {
        throw new Error(`${values.length} values are not divisible among ${size} ranks`);
      }
      return (await sum(values)).slice(rank * part, (rank + 1) * part);
    },
    allGather: async (bytes) => (await meeting.meet(rank, bytes.slice())).map((other) => other.slice()),
    broadcast: async (bytes, root) => bytes.set((await meeting.meet(rank, bytes.slice()))[root]!),
    exchange: async (send, receive) => {
      if (send) meeting.send(rank, send.rank, send.bytes.slice());
      if (!receive) return;
      const bytes = await meeting.receive(receive.rank, rank);
      if (bytes.length !== receive.bytes.length) {
        throw new Error(
          `rank ${rank} waits for ${receive.bytes.length} bytes of rank ${receive.rank}, which sends ${bytes.length}`,
        );
      }
      receive.bytes.set(bytes);
    },
    barrier: async () => void await meeting.meet(rank, null),
  };
}
