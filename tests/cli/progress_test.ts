import { CountProgress, TrainProgress } from "../../cli/progress.ts";
import type { StepMetrics, TrainInfo } from "../../train/hooks.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

const INFO: TrainInfo = {
  model: "models/tiny",
  context: "256 -> 1,024 tokens, positions linear by 4",
  attention: "S2-Attn in 4 groups of 256",
  schedule: "2.0e-4, cosine, adamw_torch",
  seed: 42,
  outputDir: "out",
  method: "LoRA rank 8 on 28 linears",
  data: "12 sequences of 128 tokens",
  device: "a GPU",
  precision: "f32",
  trainableParameters: 12_288,
  totalParameters: 1_000_000,
  sequencesPerStep: 4,
  tokensPerStep: 512,
  totalSteps: 40,
  totalEpochs: 2,
  startStep: 0,
  memory: "8.66 GiB on the device at the peak (backward, layer 32)",
  plannedBytes: 2 ** 30,
};

function metrics(step: number, more: Partial<StepMetrics> = {}): StepMetrics {
  return {
    step,
    totalSteps: 40,
    epoch: step / 20,
    loss: 2.5,
    learningRate: 2e-4,
    gradNorm: 0.3125,
    tokensPerSecond: 1234,
    memoryBytes: 3 * 2 ** 30,
    peakBytes: 4 * 2 ** 30,
    etaSeconds: 185,
    skippedSteps: 0,
    elapsedMs: step * 1000,
    ...more,
  };
}

/** A clock that starts at noon and is moved by hand. */
function handClock() {
  const start = Date.UTC(2026, 10, 20, 12);
  const clock = () => start + clock.seconds * 1000;
  clock.seconds = 0;
  return clock;
}

Deno.test("without a terminal: a summary, then a line with the time every logging_steps, and the last step", () => {
  const io = new MemoryIo();
  const clock = handClock();
  const progress = new TrainProgress(io, 10, clock);
  progress.onStart(INFO);
  for (let step = 1; step <= 40; step++) {
    clock.seconds = step;
    progress.onStep(metrics(step));
  }
  progress.onSave("out/checkpoint-40");
  progress.stop();
  const lines = io.stderr.trimEnd().split("\n");
  assertIncludes(io.stderr, "LoRA rank 8 on 28 linears (12,288 of 1,000,000 numbers, 1.23 %)");
  assertEquals(lines.slice(9), [
    ...[10, 20, 30, 40].map((step) =>
      `2026-11-20T12:00:${step}Z step ${step}/40  loss 2.5000  ${step === 40 ? "took 40s" : "eta 3m 05s"}  ` +
      `1,234 tok/s  peak 4.0 GiB  lr 2.00e-4  norm 0.313  epoch ${(step / 20).toFixed(2)}`
    ),
    "2026-11-20T12:00:40Z saved out/checkpoint-40",
  ]);
  assert(!io.stderr.includes("\r") && !io.stderr.includes("\u001b"), "nothing that moves a cursor");
  assertEquals(io.stdout, "");
});

Deno.test("without a terminal: never silent for more than a minute", () => {
  const io = new MemoryIo();
  const clock = handClock();
  const progress = new TrainProgress(io, 1000, clock);
  progress.onStart({ ...INFO, totalSteps: 900 });
  for (let step = 1; step <= 20; step++) {
    clock.seconds = step * 25;
    progress.onStep(metrics(step, { totalSteps: 900 }));
  }
  progress.stop();
  const printed = [...io.stderr.matchAll(/step (\d+)\/900/g)].map((match) => Number(match[1]));
  assertEquals(printed, [3, 6, 9, 12, 15, 18]);
});

Deno.test("on a terminal: each part of the line is there whole or not at all, whatever the width", () => {
  const whole =
    "step 40/40  loss 2.5000  took 40s  1,234 tok/s  peak 4.0 GiB  lr 2.00e-4  norm 0.313  epoch 2.00";
  const parts = whole.split("  ");
  const seen = new Set<string>();
  for (let columns = 40; columns <= 160; columns++) {
    const io = new MemoryIo({ isTerminal: true, columns });
    const progress = new TrainProgress(io, 1, handClock());
    progress.onStart(INFO);
    progress.onStep(metrics(40));
    progress.stop();
    const line = io.stderr.replaceAll("\u001b[K", "\n").split(/[\r\n]/).findLast((each) =>
      each.includes("40/40")
    )!.trimEnd();
    const shown = line.slice(line.indexOf("step")).split("  ");
    const known = shown.filter((part) => !/^(took|eta)/.test(part));
    for (const part of known) assert(parts.includes(part), `"${part}" at ${columns} columns`);
    seen.add(shown.length.toString());
  }
  assert(seen.size > 3, "wider terminals show more");
});

Deno.test("on a terminal: one line drawn again, never wider than the terminal, notes above it", () => {
  for (const columns of [40, 80, 200]) {
    const io = new MemoryIo({ isTerminal: true, columns });
    const progress = new TrainProgress(io, 1, handClock());
    progress.onStart(INFO);
    progress.onStep(metrics(1));
    progress.note("a note");
    progress.onStep(metrics(40));
    progress.stop();
    assertIncludes(io.stderr, "\r\u001b[Ka note\n");
    const drawn = io.stderr.split("\n").slice(9).join("\n").replaceAll("\u001b[K", "\n").split(/[\r\n]/);
    assert(drawn.every((line) => line.length < columns), `at most ${columns} columns`);
    assertIncludes(io.stderr, "step 40/40");
    if (columns >= 80) assertIncludes(io.stderr, "loss 2.5000");
    assert(io.stderr.endsWith("\n"), "ends its line");
    assert(!io.stderr.includes("\u001b[3"), "no colours");
  }
});

Deno.test("on a terminal rows of steps stay, so that the loss can be followed", () => {
  const io = new MemoryIo({ isTerminal: true, columns: 120 });
  const clock = handClock();
  const progress = new TrainProgress(io, 1, clock);
  progress.onStart(INFO);
  for (let step = 1; step <= 40; step++) {
    clock.seconds = step / 4;
    progress.onStep(metrics(step, { loss: 3 - step / 40 }));
  }
  progress.stop();
  const rows = io.stderr.split("\n").map((line) => line.split("\u001b[K").at(-1)!)
    .filter((row) => row.startsWith("step "));
  assertEquals(rows.map((row) => parseInt(row.slice(5))), [1, 9, 17, 25, 33, 40]);
  assertEquals(rows[0], "step  1/40  loss 2.9750  lr 2.00e-4  norm 0.313  1,234 tok/s  1.0s");
});

Deno.test("counting work prints its end, and starts over when the total changes", () => {
  const io = new MemoryIo();
  const clock = handClock();
  const progress = new CountProgress(io, "window", clock);
  for (let done = 1; done <= 4; done++) {
    clock.seconds = 10 * done;
    progress.onProgress(done, 4, `loss ${done}`);
  }
  progress.onProgress(2, 2);
  progress.stop();
  assertEquals(
    io.stderr,
    "2026-11-20T12:00:40Z window 4/4  loss 4  took 30s\n2026-11-20T12:00:40Z window 2/2  took 0.0s\n",
  );
});

Deno.test("kernels that compile are shown until the first step is done, elsewhere than on a terminal in one line", () => {
  for (const isTerminal of [false, true]) {
    const io = new MemoryIo({ isTerminal });
    const progress = new TrainProgress(io, 10);
    progress.onCompile(3);
    progress.onStart(INFO);
    progress.onCompile(28);
    progress.onCompile(37);
    progress.onStep(metrics(1));
    progress.onCompile(38);
    progress.stop();
    const counts = [...io.stderr.matchAll(/step 0\/40 {2}compiling kernels( \(\d+\))?/g)].map(([, count]) =>
      count
    );
    assertEquals(counts, isTerminal ? [" (28)", " (37)"] : [undefined]);
  }
});
