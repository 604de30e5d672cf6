import { Random } from "../../data/random.ts";
import { Sampler, stepsPerEpoch } from "../../data/sampler.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { integers } from "../support/random.ts";

Deno.test("Sampler draws every sample once per epoch, in an order that differs by epoch and seed", () => {
  const sampler = new Sampler(50, 42);
  const [first, second] = [sampler.next(50), sampler.next(50)];
  const other = new Sampler(50, 43).next(50);
  for (const order of [first, second, other]) {
    assertEquals([...order].sort((a, b) => a - b), Array.from({ length: 50 }, (_, i) => i));
  }
  assert(first.join() !== second.join(), "two epochs have the same order");
  assert(first.join() !== other.join(), "two seeds have the same order");
  assert(second.join() !== other.join(), "an epoch has the order of the next seed's epoch before");
  assertEquals(new Sampler(50, 42).next(100), [...first, ...second]);
  // A checkpoint keeps the position alone: another order would go on with other samples.
  assertEquals(new Sampler(8, 42).next(16), [7, 2, 6, 4, 0, 5, 3, 1, 6, 2, 7, 1, 5, 0, 4, 3]);
});

Deno.test("Sampler resumes exactly at any position", () => {
  const whole = new Sampler(7, 3).next(40);
  for (let position = 0; position < 30; position++) {
    const resumed = new Sampler(7, 3);
    resumed.position = position;
    assertEquals(resumed.next(10), whole.slice(position, position + 10), `position ${position}`);
  }
});

Deno.test("Sampler counts epochs and ends one with a smaller step where asked", () => {
  const sampler = new Sampler(10, 1);
  assertEquals(Array.from({ length: 6 }, () => sampler.nextInEpoch(4).length), [4, 4, 2, 4, 4, 2]);
  assertEquals(sampler.epoch, 2);
  sampler.next(5);
  assertEquals([sampler.epoch, sampler.leftInEpoch], [2.5, 5]);
  assertEquals([stepsPerEpoch(10, 4), stepsPerEpoch(8, 4), stepsPerEpoch(3, 16)], [3, 2, 1]);
});

Deno.test("Sampler refuses an empty set", async () => {
  await assertThrows(() => new Sampler(0, 1), "Cannot sample from 0 samples");
});

Deno.test("Sampler puts every sample in every place about equally often", () => {
  const [samples, runs] = [5, 4000];
  const counts = Array.from({ length: samples }, () => new Array<number>(samples).fill(0));
  for (let seed = 0; seed < runs; seed++) {
    new Sampler(samples, seed).next(samples).forEach((sample, place) => counts[place]![sample]!++);
  }
  // 800 expected; the deviation of one count is 25.
  for (const count of counts.flat()) assert(Math.abs(count - runs / samples) < 125, `${count} of ${runs}`);
});

Deno.test("Random is a function of seed and position, even, and uncorrelated between nearby seeds", () => {
  const random = new Random(9);
  const values = Array.from({ length: 20_000 }, () => random.uniform());
  assertEquals(new Random(9, 777).uniform(), values[777]);
  assertEquals(random.position, 20_000);
  const mean = values.reduce((a, b) => a + b) / values.length;
  // The deviation of the mean of 20,000 uniform values is 0.002.
  assert(Math.abs(mean - 0.5) < 0.01, `mean ${mean}`);
  const neighbour = new Random(10);
  const product = values.reduce((sum, x) => sum + (x - 0.5) * (neighbour.uniform() - 0.5), 0) /
    values.length * 12;
  assert(Math.abs(product) < 0.035, `correlation ${product}`);
  const serial = values.slice(1).reduce((sum, x, i) => sum + (x - 0.5) * (values[i]! - 0.5), 0) /
    values.length * 12;
  assert(Math.abs(serial) < 0.035, `serial correlation ${serial}`);
  assert(values.every((x) => x >= 0 && x < 1), "a value is outside [0, 1)");
});

Deno.test("Sampler groups samples of like length, the longest first, each still once an epoch", () => {
  const lengths = Array.from(integers(3, 400, 1000));
  const sampler = new Sampler(400, 7, { lengths, batch: 4 });
  const epoch = sampler.next(400);
  assertEquals([...epoch].sort((a, b) => a - b), Array.from({ length: 400 }, (_, i) => i));
  assertEquals(lengths[epoch[0]!], Math.max(...lengths));
  // 400 samples in batches of 4 are megabatches of 25 batches, each from long to short but for the longest of all.
  for (let start = 0; start < 400; start += 100) {
    const megabatch = epoch.slice(start, start + 100).map((index) => lengths[index]!);
    const rises = megabatch.slice(1).filter((length, i) => length > megabatch[i]!).length;
    assert(rises <= 1, `${rises} samples are longer than the one before in the megabatch at ${start}`);
  }
  const spread = (order: readonly number[]) => {
    let sum = 0;
    for (let i = 0; i < order.length; i += 4) {
      const batch = order.slice(i, i + 4).map((index) => lengths[index]!);
      sum += Math.max(...batch) - Math.min(...batch);
    }
    return sum;
  };
  assert(
    spread(epoch) < 0.1 * spread(new Sampler(400, 7).next(400)),
    "the batches are as mixed as without groups",
  );
  assert(sampler.next(400).join() !== epoch.join(), "the second epoch is the first");
  // Of more batches a megabatch has 50.
  const single = new Sampler(400, 7, { lengths, batch: 1 }).next(400).map((index) => lengths[index]!);
  assert(single[50]! > single[49]!, "a megabatch has more than 50 batches");
});
