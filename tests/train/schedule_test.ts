import { learningRate, type ScheduleName } from "../../train/schedule.ts";
import { assertClose } from "../support/assert_close.ts";

/** By the formulas of Hugging Face's get_scheduler: peak 1, 2 steps of warm-up, 6 steps in all. */
const EXPECTED: Record<ScheduleName, number[]> = {
  constant: [1, 1, 1, 1, 1, 1],
  constant_with_warmup: [0, 0.5, 1, 1, 1, 1],
  linear: [0, 0.5, 1, 0.75, 0.5, 0.25],
  cosine: [0, 0.5, 1, 0.8535533905932737, 0.5, 0.14644660940672627],
};

for (const [name, expected] of Object.entries(EXPECTED) as [ScheduleName, number[]][]) {
  Deno.test(`learningRate() of ${name} is Hugging Face's`, () => {
    const schedule = { name, learningRate: 0.002, warmupSteps: 2, totalSteps: 6 };
    const rates = expected.map((_, i) => learningRate(schedule, i + 1));
    assertClose(name, rates, expected.map((rate) => 0.002 * rate), { rtol: 1e-12, atol: 1e-15 });
  });
}

Deno.test("learningRate() without warm-up begins at its highest", () => {
  for (const name of Object.keys(EXPECTED) as ScheduleName[]) {
    const schedule = { name, learningRate: 0.002, warmupSteps: 0, totalSteps: 4 };
    const rates = [1, 2, 3, 4].map((step) => learningRate(schedule, step) / 0.002);
    const expected = name === "linear"
      ? [1, 0.75, 0.5, 0.25]
      : name === "cosine"
      ? [1, 0.8535533905932737, 0.5, 0.14644660940672627]
      : [1, 1, 1, 1];
    assertClose(name, rates, expected, { rtol: 1e-12, atol: 1e-15 });
  }
});

Deno.test("learningRate() is defined where warm-up takes the whole run", () => {
  for (const name of Object.keys(EXPECTED) as ScheduleName[]) {
    const schedule = { name, learningRate: 1, warmupSteps: 2, totalSteps: 2 };
    const rates = [1, 2].map((step) => learningRate(schedule, step));
    assertClose(name, rates, name === "constant" ? [1, 1] : [0, 0.5], { rtol: 0, atol: 0 });
  }
});
