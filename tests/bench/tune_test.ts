import { describeChoices, tune, tuningOf } from "../../bench/tune.ts";
import type { Progress } from "../../cli/progress.ts";
import { attentionTunables } from "../../kernels/attention/variants.ts";
import { GpuError } from "../../kernels/errors.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { chosenVariant } from "../../kernels/tuning.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

const SILENT: Progress = { update() {}, note() {}, stop() {} };
const KEY = "attention forward 32";
const OPTIONS = { clock: "cpu", filter: /^attention forward 32 /, progressOf: () => SILENT } as const;

Deno.test("the tuner tries every variant of a class and gives a table that devices take", async () => {
  let slow: string | undefined;
  const choices = await tune(async (tuning) => {
    const gpu = await Gpu.open({ tuning });
    slow = attentionTunables(gpu).find(({ key }) => key === KEY)!.variants[0];
    const settle = gpu.settle.bind(gpu);
    gpu.settle = async () => {
      const end = performance.now() + 50;
      while (tuning[KEY] === slow && performance.now() < end);
      await settle();
    };
    return gpu;
  }, OPTIONS);
  assertEquals(choices.map(({ key }) => key), [KEY]);
  const [{ chosen, chosenMs, defaultMs, tried }] = choices as [typeof choices[0]];
  assert(chosenMs > 0 && chosenMs <= defaultMs, `${chosenMs} of ${defaultMs}`);
  assertEquals(tried[chosen], chosenMs);
  assert(chosen !== slow, `the default, which was made slow, of ${JSON.stringify(tried)}`);
  assertEquals(chosenMs, Math.min(...Object.values(tried).map((ms) => ms!)));
  using gpu = await Gpu.open({ tuning: tuningOf(choices) });
  const tunable = attentionTunables(gpu).find(({ key }) => key === KEY)!;
  assertEquals(Object.keys(tried), tunable.variants);
  assertEquals(chosenVariant(gpu.tuning, tunable), chosen);
  assertIncludes(describeChoices(choices), KEY);
});

Deno.test("a variant that fails on this device is left out, and the others are tried on a new one", async () => {
  let opened = 0;
  let failing: string | undefined;
  const choices = await tune(async (tuning) => {
    const gpu = await Gpu.open({ tuning });
    opened++;
    failing ??= attentionTunables(gpu).find(({ key }) => key === KEY)!.variants[0];
    const settle = gpu.settle.bind(gpu);
    gpu.settle = async () => {
      if (tuning[KEY] === failing) throw new GpuError("Kernel does not compile");
      await settle();
    };
    return gpu;
  }, OPTIONS);
  assertEquals(opened, 2);
  const [{ chosen, tried }] = choices as [typeof choices[0]];
  assert(chosen !== failing, chosen);
  assertEquals(tried[failing!], null);
  assert(Object.values(tried).filter((ms) => ms !== null).length >= 1, JSON.stringify(tried));
});
