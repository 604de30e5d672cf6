/** One rank of a job under `mpirun`: compares what the library does with what ranks of one process do. Prints nothing if that is the same. */
import type { Communicator } from "../../distributed/communicator.ts";
import { gather, requireSame, shared } from "../../distributed/agreement.ts";
import { joinJob } from "../../distributed/mpi.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { playRanks } from "../support/ranks.ts";

/** Sums of these are exact, whatever their order. */
const valuesOf = (rank: number, size: number) =>
  Float32Array.from({ length: 3 * size }, (_, i) => i * (rank + 1));

/** Calls everything, with messages of all lengths. @returns what this rank got */
async function callAll(ranks: Communicator): Promise<unknown[]> {
  const { rank, size } = ranks;
  const summed = valuesOf(rank, size);
  await ranks.allReduce(summed);
  const part = await ranks.reduceScatter(valuesOf(rank, size));
  const gathered = await ranks.allGather(new Uint8Array(rank).fill(rank));
  const told = new Uint8Array(5).fill(rank);
  await ranks.broadcast(told, size - 1);
  // Along a chain, whose ends have one neighbour, and of nothing at all.
  const received = new Uint8Array(70_000);
  const message = { rank: rank + 1, bytes: new Uint8Array(70_000).fill(rank + 1) };
  await ranks.exchange(
    rank + 1 < size ? message : null,
    rank > 0 ? { rank: rank - 1, bytes: received } : null,
  );
  await ranks.exchange(null, null);
  await ranks.allReduce(new Float32Array(0));
  await ranks.barrier();
  const odd = await gather(ranks, { rank, nan: NaN, words: ["NaN", undefined] });
  const squares = await shared(ranks, [1, 2, 3, 4, 5], (item, i) => Promise.resolve([item * item, i]));
  return [summed, part, gathered, told, received.at(-1), odd, squares];
}

const { ranks, leave } = joinJob(Deno.args[0]!);
const expected = await playRanks(ranks.size, callAll);
assertEquals(await callAll(ranks), expected[ranks.rank]);

// Events go on while a rank waits.
let ticks = 0;
const timer = setInterval(() => ticks++, 5);
if (ranks.rank === 0) await new Promise((resolve) => setTimeout(resolve, 300));
await ranks.allReduce(Float32Array.of(1));
clearInterval(timer);
if (ticks < 10) throw new Error(`${ticks} events in 300 ms`);

// The sum of floats depends on its order, which is the same on all ranks and in all runs.
const noise = Float32Array.from(
  { length: 100_003 },
  (_, i) => Math.sin(i * (ranks.rank + 1)) * 2 ** (i % 40),
);
const sums: number[] = [];
for (let i = 0; i < 3; i++) {
  const values = noise.slice();
  await ranks.allReduce(values);
  sums.push(...new Uint32Array(values.buffer));
}
const [first, ...others] = (await gather(ranks, sums)).flatMap((
  all,
) => [all.slice(0, noise.length), all.slice(noise.length, 2 * noise.length), all.slice(2 * noise.length)]);
for (const other of others) if (other.join() !== first!.join()) throw new Error("sums differ");

await requireSame(ranks, { a: 1 });
await assertThrows(
  () => requireSame(ranks, { a: 1, b: ranks.rank === 1 ? "x" : "y" }),
  "b is x on rank 1, y on rank 0",
);
leave();
