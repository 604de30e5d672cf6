/**
 * Dawn, and the trials of its matrix units. `deno task test:dawn` runs this and every other test of the kernels on it;
 * without the permission, the package, an adapter or the units the tests say so and are skipped.
 */
import { attentionTunables } from "../../kernels/attention/variants.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { matmulReference } from "../../kernels/matmul/reference.ts";
import {
  MATRIX_TOPICS,
  type MatrixTopic,
  matrixTrials,
  topicOf,
} from "../../kernels/matrix_trials/matrix_trials.ts";
import { openGpu } from "../../kernels/open.ts";
import { describeFault, type Verdict } from "../../kernels/refusal.ts";
import { runTrial } from "../../kernels/trial.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { dawn, dawnTest, matrices, openDawn } from "../support/dawn.ts";
import { abs, worst } from "../support/matrix_units.ts";
import { normal } from "../support/random.ts";

const ROOT = new URL("../../", import.meta.url);

Deno.test("dawn.lock pins what deno.lock does, and Dawn, which deno.lock must not name", async () => {
  const [lock, dawnLock] = await Promise.all(
    ["deno.lock", "dawn.lock"].map(async (name) => JSON.parse(await Deno.readTextFile(new URL(name, ROOT)))),
  );
  for (const part of ["specifiers", "npm"]) {
    for (const [name, pinned] of Object.entries(lock[part])) {
      assertEquals(dawnLock[part][name], pinned, `copy it from deno.lock to dawn.lock: ${name}`);
    }
    const more = Object.keys(dawnLock[part]).filter((name) => !(name in lock[part]));
    assert(more.some((name) => /^(npm:)?webgpu@/.test(name)), `${part} of dawn.lock: ${more}`);
  }
});

dawnTest("a process that used it ends by itself, with exit code 0", dawn, async () => {
  const code = `
    import { Gpu } from "${ROOT}kernels/gpu.ts";
    import { matmul } from "${ROOT}kernels/matmul/matmul.ts";
    const gpu = await Gpu.open({ webgpu: "dawn" });
    const ones = gpu.tensor([4, 4], new Float32Array(16).fill(1));
    console.log(gpu.info.webgpu, (await gpu.read(matmul(gpu, ones, ones))).join(" "));
    gpu.close();`;
  const { code: status, stdout, stderr } = await new Deno.Command("deno", {
    args: ["eval", "--quiet", "--ext=ts", "--lock=dawn.lock", code],
    cwd: ROOT,
    signal: AbortSignal.timeout(120_000),
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes).trim());
  assertEquals([status, out], [0, `dawn ${"4 ".repeat(16).trim()}`], err);
});

dawnTest("it opens beside a device of Deno's own, each with its own kernels and buffers", dawn, async () => {
  using native = await Gpu.open({ webgpu: "deno" });
  using other = await openDawn();
  assertEquals([native.info.webgpu, other.info.webgpu], ["deno", "dawn"]);
  const values = normal(1, 16);
  const products = await Promise.all([native, other].map((gpu) => {
    const x = gpu.tensor([4, 4], values);
    return gpu.read(matmul(gpu, x, x));
  }));
  const expected = matmulReference(values, values, { M: 4, N: 4, K: 4 });
  for (const product of products) assert(worst(product, expected, abs(expected)) < 2 ** -16, `${product}`);
});

dawnTest(
  "what matrix units are counted on holds on this device, each trial with a name of its own",
  matrices,
  async () => {
    using gpu = await openDawn({ poison: true });
    const trials = matrixTrials(gpu);
    assertEquals(new Set(trials.map(({ kernel }) => kernel)).size, trials.length);
    assertEquals(new Set(trials.map(({ kernel }) => topicOf(kernel))), new Set(MATRIX_TOPICS));
    for (const trial of trials) {
      const verdict = await runTrial(gpu, trial);
      assert(verdict.ok && verdict.error === 0, describeFault(verdict));
    }
  },
);

/** Faults of drivers, as changes of the kernels: where they must show, and what is refused for them. */
const FAULTS: readonly {
  change: readonly [RegExp, string];
  topic: MatrixTopic;
  parts: RegExp;
  matmul: boolean;
}[] = [
  {
    change: [/<Right, row_major>/g, "<Right, col_major>"],
    topic: "loads",
    parts: /^Right by rows/,
    matmul: false,
  },
  {
    change: [/<Left, row_major>\(&tile, at/g, "<Left, row_major>(&tile, 2u * at"],
    topic: "loads",
    parts: /^Left by rows/,
    matmul: true,
  },
  {
    change: [/fill\(thread, 0u\);(?=[^]*left_\$i)/, "fill(thread, 1u);"],
    topic: "overwrite",
    parts: /^used/,
    matmul: false,
  },
  { change: [/Sums\(0\.0\)/, "Sums(1.0)"], topic: "reset", parts: /^Sums\(0\.0\) in a loop/, matmul: false },
  {
    change: [/<Sums, row_major>\(&wide, SN/, "<Sums, row_major>(&wide, 0u"],
    topic: "sums",
    parts: /lines of \d+$/,
    matmul: true,
  },
  {
    change: [/= f16\(value_of\(row \* 2u/, "= f16(1.0 + value_of(row * 2u"],
    topic: "f16 stores",
    parts: /./,
    matmul: true,
  },
  { change: [/1u << \$su/, "2u << $su"], topic: "lanes", parts: /^shuffle/, matmul: true },
];

dawnTest(
  "a fault of matrix units is found by the trial of its name, and refuses what counts on it",
  matrices,
  async () => {
    using gpu = await openDawn({ poison: true });
    const trials = matrixTrials(gpu);
    const run = gpu.run.bind(gpu);
    for (const { change, topic, parts, matmul } of FAULTS) {
      gpu.run = (kernel, ...rest) =>
        run(
          { ...kernel, name: `${kernel.name} ${topic} ${change[1]}`, wgsl: kernel.wgsl.replace(...change) },
          ...rest,
        );
      // One of the topic shows it.
      const { kernel, ...of } = trials.find(({ kernel }) => topicOf(kernel) === topic)!;
      const verdict = await runTrial(gpu, { kernel, ...of });
      const label = `${topic}: ${JSON.stringify(verdict)}`;
      assert(!verdict.ok && verdict.failure === null && verdict.wrong.length > 0, label);
      assert(verdict.wrong.every(({ part }) => parts.test(part)), label);
      assertEquals(verdict.risks.includes("matmul by matrices"), matmul, label);
      assert(verdict.risks.includes("attention by matrices"), label);
      assert(describeFault(verdict).includes(verdict.wrong[0]!.part), label);
    }
  },
);

dawnTest(
  "a device on which matrix units fail a trial does without them, and works on",
  matrices,
  async () => {
    using probe = await openDawn();
    const tuning = Object.fromEntries(
      attentionTunables(probe).flatMap(({ key, variants }) => {
        const onMatrices = variants.findLast((name) => name.startsWith("matrix"));
        return onMatrices && key.startsWith("attention forward 32") ? [[key, onMatrices]] : [];
      }),
    );
    assertEquals(Object.keys(tuning).length, 1, "the class tried");
    const told: Verdict[] = [];
    const store: Verdict[] = [];
    using gpu = await openGpu(
      {
        webgpu: "dawn",
        tuning,
        verdicts: {
          read: () => Promise.resolve([]),
          save: (_, all) => Promise.resolve(void store.push(...all)),
        },
        onRefusal: (verdict) => told.push(verdict),
      },
      async (options) => {
        const device = await Gpu.open(options);
        const run = device.run.bind(device);
        device.run = ({ wgsl, ...kernel }, ...rest) =>
          run({
            ...kernel,
            wgsl: wgsl.replace(
              "let left_$i = subgroupMatrixLoad",
              "fill(thread, 1u); let left_$i = subgroupMatrixLoad",
            ),
          }, ...rest);
        return device;
      },
    );
    const wrong = store.filter(({ ok }) => !ok).map(({ kernel }) => topicOf(kernel));
    assertEquals(new Set(wrong), new Set(["overwrite"]));
    assertEquals([...gpu.refused].sort(), ["attention by matrices", "attention gradients by matrices"]);
    assertEquals(new Set(told.map(({ kernel }) => topicOf(kernel))), new Set(["overwrite"]));
    assert(
      attentionTunables(gpu).every(({ variants }) => !variants.some((name) => name.startsWith("matrix"))),
      "none",
    );
  },
);
