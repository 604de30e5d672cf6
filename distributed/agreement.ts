/** What ranks tell each other besides tensors. All ranks call these in the same order, as a {@linkcode Communicator}'s methods. */
import { UserError } from "../errors.ts";
import type { Communicator } from "./communicator.ts";
import { deserialize, serialize } from "./deps.ts";

/** Gives every rank the values of all, in the order of the ranks: whatever can be cloned. */
export async function gather<T>(ranks: Communicator, value: T): Promise<T[]> {
  if (ranks.size === 1) return [value];
  return (await ranks.allGather(serialize(value))).map((bytes) => deserialize(bytes));
}

/** Gives every rank the value of rank 0; the others' are not looked at. */
export async function fromFirst<T>(ranks: Communicator, value: T): Promise<T> {
  return (await gather(ranks, ranks.rank === 0 ? value : null))[0]!;
}

/** Whether it is true on any rank. */
export async function onAny(ranks: Communicator, value: boolean): Promise<boolean> {
  return (await gather(ranks, value)).includes(true);
}

/** Does work on rank 0, and then on the others, which find what the first has put into a cache. */
export async function firstThenOthers<T>(ranks: Communicator, work: () => Promise<T>): Promise<T> {
  if (ranks.rank > 0) await ranks.barrier();
  const result = await work();
  if (ranks.rank === 0) await ranks.barrier();
  return result;
}

/** Does work for every item, dealt to the ranks in turn, and gives every rank all results, in the order of the items. */
export async function shared<T, R>(
  ranks: Communicator,
  items: readonly T[],
  work: (item: T, index: number) => Promise<R>,
): Promise<R[]> {
  const own: R[] = [];
  for (let i = ranks.rank; i < items.length; i += ranks.size) own.push(await work(items[i]!, i));
  const all = await gather(ranks, own);
  return items.map((_, i) => all[i % ranks.size]![Math.floor(i / ranks.size)]!);
}

/**
 * As {@linkcode shared}, but in rounds of an item for each rank: what a round gave is known, and can be kept, before the next.
 * @returns every item and its result, in order, on every rank
 */
export async function* inRounds<T, R>(
  ranks: Communicator,
  items: Iterable<T> | AsyncIterable<T>,
  work: (item: T) => Promise<R>,
): AsyncGenerator<{ readonly item: T; readonly result: R }> {
  async function* finish(round: readonly T[]) {
    const own = ranks.rank < round.length ? [await work(round[ranks.rank]!)] : [];
    const results = (await gather(ranks, own)).flat(1) as R[];
    for (const [i, item] of round.entries()) yield { item, result: results[i]! };
  }
  let round: T[] = [];
  for await (const item of items) {
    round.push(item);
    if (round.length < ranks.size) continue;
    yield* finish(round);
    round = [];
  }
  if (round.length > 0) yield* finish(round);
}

/**
 * Checks that all ranks have the same facts.
 * @throws {UserError} on every rank, naming each fact that differs and the first rank on which it does
 */
export async function requireSame(
  ranks: Communicator,
  facts: Readonly<Record<string, string | number>>,
): Promise<void> {
  const [first, ...others] = await gather(ranks, facts);
  const differing = Object.keys({ ...first, ...Object.assign({}, ...others) }).flatMap((name) => {
    const i = others.findIndex((other) => other[name] !== first![name]);
    return i < 0 ? [] : [
      `${name} is ${others[i]![name] ?? "not set"} on rank ${i + 1}, ${first![name] ?? "not set"} on rank 0`,
    ];
  });
  if (differing.length === 0) return;
  throw new UserError(`The ranks of this job must be alike, but ${differing.join("; ")}`, { kind: "usage" });
}
