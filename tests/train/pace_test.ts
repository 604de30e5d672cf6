import { Pace } from "../../train/pace.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

Deno.test("Pace counts training alone for tokens per second, over the last eight steps", () => {
  const pace = new Pace();
  pace.add(1000, 500);
  assertEquals([pace.tokens, pace.tokensPerSecond], [1000, 2000]);
  for (let step = 0; step < 7; step++) pace.add(100, 1000);
  assertEquals([pace.tokens, pace.tokensPerSecond], [1700, 1000 * 1700 / 7500]);
  pace.add(100, 1000);
  assertEquals([pace.tokens, pace.tokensPerSecond], [1800, 100]);
});

Deno.test("Pace has all the time between steps for the time of a step", async () => {
  const pace = new Pace();
  await new Promise((done) => setTimeout(done, 30));
  pace.add(10, 1);
  pace.add(10, 1);
  const { secondsPerStep, elapsedMs } = pace;
  assert(
    secondsPerStep >= 0.014 && 2000 * secondsPerStep <= elapsedMs,
    `${secondsPerStep} s, ${elapsedMs} ms`,
  );
});
