/** One rank: sums buffers by our calls and by C's in turn. Rank 0 prints a line of JSON for each size. */
import { joinJob } from "../../distributed/mpi.ts";

/** Bytes of a buffer, and sums of it at a time: what a bucket of gradients is, and less. */
const SIZES = [[2 ** 18, 40], [2 ** 22, 8], [2 ** 25, 2]] as const;
const ROUNDS = 25;

const [library, reference] = Deno.args;
const { ranks, leave } = joinJob(library!);
const c = Deno.dlopen(reference!, { sum_times: { parameters: ["buffer", "i32", "i32"], result: "f64" } });

async function sumTimes(buffer: Float32Array, times: number): Promise<number> {
  const began = performance.now();
  for (let t = 0; t < times; t++) await ranks.allReduce(buffer);
  return (performance.now() - began) / 1000;
}

for (const [bytes, times] of SIZES) {
  const buffer = new Float32Array(bytes / 4);
  const seconds = { here: [] as number[], c: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    await ranks.barrier();
    const here = await sumTimes(buffer, times);
    await ranks.barrier();
    const there = c.symbols.sum_times(buffer, buffer.length, times);
    // The first touches the memory.
    if (round === 0) continue;
    seconds.here.push(here / times);
    seconds.c.push(there / times);
  }
  if (ranks.rank === 0) {
    Deno.stdout.writeSync(new TextEncoder().encode(`${JSON.stringify({ bytes, ...seconds })}\n`));
  }
}
leave();
