/**
 * Dawn, and the kernels on matrix units that only it runs. `deno task test:dawn` runs this and every other test of the
 * kernels on it; without the permission, the package, an adapter or the units the tests say so and are skipped.
 */
import { attention, attentionBackward } from "../../kernels/attention/attention.ts";
import { firstKeys, makeAttentionMap, type RowLayout } from "../../kernels/attention/map.ts";
import { attentionBackwardReference, attentionReference } from "../../kernels/attention/reference.ts";
import { attentionTunables } from "../../kernels/attention/variants.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { matmul, matmulBackwardInput, matmulBackwardWeight } from "../../kernels/matmul/matmul.ts";
import {
  matmulBackwardInputReference,
  matmulBackwardWeightReference,
  matmulReference,
} from "../../kernels/matmul/reference.ts";
import {
  MATRIX_TOPICS,
  type MatrixTopic,
  matrixTrials,
  topicOf,
} from "../../kernels/matrix_trials/matrix_trials.ts";
import { openGpu } from "../../kernels/open.ts";
import { describeFault, type Verdict } from "../../kernels/refusal.ts";
import { runTrial } from "../../kernels/trial.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { abs, dawn, dawnTest, matrices, openDawn, openWithMatrices, worst } from "../support/dawn.ts";
import { inFormat } from "../support/numeric.ts";
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
  "products on matrix units are exact for 16 bits far outside the range of f16",
  matrices,
  async () => {
    using gpu = await openWithMatrices();
    const [M, N, K] = [35, 44, 68];
    const size = { M, N, K };
    for (const [left, right] of [[1e6, 1e-9], [1e-20, 1e20]] as const) {
      const x = inFormat(gpu, [M, K], normal(1, M * K, left), "bf16");
      const w = inFormat(gpu, [N, K], normal(2, N * K, right), "bf16");
      const dyOfX = inFormat(gpu, [M, N], normal(3, M * N, left), "bf16");
      const dyOfW = inFormat(gpu, [M, N], normal(3, M * N, right), "bf16");
      const format = "f32";
      const y = matmul(gpu, x.tensor, w.tensor, { format });
      const dx = matmulBackwardInput(gpu, dyOfX.tensor, w.tensor, { format });
      const dw = matmulBackwardWeight(gpu, dyOfW.tensor, x.tensor, { into: gpu.empty([N, K]) });
      const products = [
        [y, matmulReference, x, w],
        [dx, matmulBackwardInputReference, dyOfX, w],
        [dw, matmulBackwardWeightReference, dyOfW, x],
      ] as const;
      for (const [product, reference, a, b] of products) {
        const magnitude = reference(abs(a.values), abs(b.values), size);
        const error = worst(await gpu.read(product), reference(a.values, b.values, size), magnitude);
        assert(error < 8 * 2 ** -24, `${reference.name} at ${left} by ${right}: ${error}`);
      }
    }
  },
);

dawnTest("rows of small values keep their bits beside rows of large ones", matrices, async () => {
  using gpu = await openWithMatrices();
  const [M, N, K] = [33, 32, 64];
  // Down to 2^-28 of the largest, which is what f16 has room for.
  const values = normal(4, M * K).map((value, i) => i < K ? value * 2 ** 26 : value);
  const x = inFormat(gpu, [M, K], values, "bf16");
  const w = inFormat(gpu, [N, K], normal(5, N * K), "bf16");
  const y = await gpu.read(matmul(gpu, x.tensor, w.tensor, { format: "f32" }));
  const magnitude = matmulReference(abs(x.values), abs(w.values), { M, N, K });
  const error = worst(y, matmulReference(x.values, w.values, { M, N, K }), magnitude);
  assert(error < 2 ** -11, `${error}`);
});

dawnTest("products on matrix units are right where operands grow along the depth", matrices, async () => {
  using gpu = await openWithMatrices();
  const [M, N, K] = [33, 32, 64];
  // After steps of small values: sums must be scaled down with what comes.
  const grown = (seed: number, rows: number) =>
    normal(seed, rows * K).map((value, i) => i % K < K / 2 ? value : 8 * value);
  const [x, w] = [inFormat(gpu, [M, K], grown(12, M), "bf16"), inFormat(gpu, [N, K], grown(13, N), "bf16")];
  const y = await gpu.read(matmul(gpu, x.tensor, w.tensor, { format: "f32" }));
  const magnitude = matmulReference(abs(x.values), abs(w.values), { M, N, K });
  const error = worst(y, matmulReference(x.values, w.values, { M, N, K }), magnitude);
  assert(error < 8 * 2 ** -24, `${error}`);
});

dawnTest("what is not finite reaches its own row, and no other", matrices, async () => {
  for (const ofHalves of [false, true]) await assertOwnRows(ofHalves);
});

async function assertOwnRows(ofHalves: boolean): Promise<void> {
  using gpu = await openWithMatrices({}, ofHalves);
  const [M, N, K] = ofHalves ? [129, 132, 64] : [33, 32, 64];
  const values = normal(6, M * K);
  values[2 * K + 5] = NaN;
  values[7 * K + 9] = Infinity;
  const x = inFormat(gpu, [M, K], values, "bf16");
  const w = inFormat(gpu, [N, K], normal(7, N * K), "bf16");
  const y = await gpu.read(matmul(gpu, x.tensor, w.tensor, { format: "f32" }));
  for (let row = 0; row < M; row++) {
    const isFinite = y.subarray(row * N, row * N + N).map((value) => Number(Number.isFinite(value)));
    assertEquals(new Set(isFinite), new Set([row === 2 || row === 7 ? 0 : 1]), `row ${row}`);
  }
}

interface Heads {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

interface Sizes {
  readonly format?: Format;
  /** Size of q, and so of scores; no gradients are compared where it is large, for there they cancel. */
  readonly loud?: number;
  /** Size of v. */
  readonly size?: number;
  /** Size of the gradient of o. */
  readonly gradient?: number;
  /** By how much v and the gradient are larger in the last third of the rows. */
  readonly growth?: number;
  readonly cap?: number;
}

/** Attention on matrix units and its gradients against float64: to the rounding of their format, lse to that of f32. */
async function assertAttends(
  gpu: Gpu,
  of: RowLayout & Heads,
  { format = "bf16", loud = 1, size = 1, gradient = 1, growth = 1, cap }: Sizes = {},
): Promise<void> {
  const { rows, heads, kvHeads, headDim } = of;
  const before = gpu.memory.liveBytes;
  const map = makeAttentionMap(gpu, of);
  const [wide, narrow] = [[rows, heads * headDim], [rows, kvHeads * headDim]] as const;
  const make = (seed: number, shape: readonly [number, number], of: number, growth = 1) => {
    const values = normal(seed, shape[0] * shape[1], of);
    return inFormat(gpu, shape, values.map((x, i) => i < 2 / 3 * values.length ? x : growth * x), format);
  };
  const [q, k, v, dO] = [
    make(8, wide, loud),
    make(9, narrow, 1),
    make(10, narrow, size, growth),
    make(11, wide, gradient, growth),
  ];
  const scoring = cap === undefined ? {} : { cap };
  const label = JSON.stringify({ ...of, format, loud, size, gradient, growth, cap });
  const unit = format === "bf16" ? 2 ** -8 : 2 ** -10;
  const assertWithin = async (name: string, actual: Tensor, expected: Float64Array, bound: number) => {
    const scale = new Float64Array(expected.length).fill(Math.max(...abs(expected)));
    const error = worst(await gpu.read(actual), expected, scale);
    assert(error < bound, `${name} of ${label}: ${error}`);
  };
  const values = { q: q.values, k: k.values, v: v.values };
  const { o, lse } = attention(gpu, q.tensor, k.tensor, v.tensor, map, of, scoring);
  const expected = attentionReference(values, firstKeys(of), of, scoring);
  await assertWithin("o", o, expected.o, unit);
  const lseError = worst(await gpu.read(lse), expected.lse, expected.lse.map((x) => Math.abs(x) + loud));
  assert(lseError < 2 ** -20, `lse of ${label}: ${lseError}`);
  if (loud === 1) {
    const saved = { q: q.tensor, k: k.tensor, v: v.tensor, o, lse };
    const { dq, dk, dv } = attentionBackward(gpu, dO.tensor, saved, map, of, scoring);
    const gradients = attentionBackwardReference(dO.values, values, firstKeys(of), of, scoring);
    await assertWithin("dq", dq, gradients.dq, 2 * unit);
    await assertWithin("dk", dk, gradients.dk, 2 * unit);
    await assertWithin("dv", dv, gradients.dv, 2 * unit);
    for (const tensor of [dq, dk, dv]) tensor.free();
  }
  for (const tensor of [q.tensor, k.tensor, v.tensor, dO.tensor, o, lse]) tensor.free();
  map.free();
  assertEquals(gpu.memory.liveBytes, before, "live bytes");
}

dawnTest(
  "attention on matrix units and its gradients match float64, whoever sees whom, at any size of the values",
  matrices,
  async () => {
    using gpu = await openWithMatrices();
    const of = { heads: 4, kvHeads: 2, headDim: 16, starts: [0, 30], rows: 97 };
    await assertAttends(gpu, { ...of, starts: [0], rows: 1 }, { loud: 2 });
    for (const rows of [31, 32, 33, 97]) await assertAttends(gpu, { ...of, rows });
    await assertAttends(gpu, { ...of, groupSize: 24 });
    await assertAttends(gpu, { ...of, rows: 131, documents: [0, 3, 40, 41, 72] });
    // Peaks that move far within a row, and values outside the range of f16.
    await assertAttends(gpu, of, { loud: 20, size: 1e6 });
    await assertAttends(gpu, of, { loud: 100, size: 1e-9 });
    await assertAttends(gpu, of, { size: 1e6, gradient: 1e-9 });
    await assertAttends(gpu, of, { size: 1e-9, gradient: 1e6 });
    await assertAttends(gpu, of, { growth: 2 ** 12 });
    // One kv head for all heads; rows of results that are several rows of scores.
    await assertAttends(gpu, { ...of, kvHeads: 1, headDim: 32 }, { format: "f16", cap: 2 });
  },
);

dawnTest(
  "attention on matrix units goes on from earlier keys and queries where tensors are split",
  matrices,
  async () => {
    // In f16 with their scales 64 rows of q have as many bytes.
    using gpu = await openWithMatrices({ maxBindingBytes: 64 * 4 * (16 + 8) * 2 });
    assert(gpu.empty([300, 64], "bf16").segments.length > 1, "in several parts");
    await assertAttends(gpu, { heads: 4, kvHeads: 2, headDim: 16, starts: [0, 100], rows: 300 });
  },
);

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

dawnTest("attention on matrix units gives the same bits again", matrices, async () => {
  using gpu = await openWithMatrices();
  const of = { heads: 4, kvHeads: 2, headDim: 16, starts: [0, 30], rows: 97 };
  const map = makeAttentionMap(gpu, of);
  const [q, dO] = [8, 11].map((seed) => inFormat(gpu, [97, 64], normal(seed, 97 * 64), "bf16").tensor);
  const [k, v] = [9, 10].map((seed) => inFormat(gpu, [97, 32], normal(seed, 97 * 32), "bf16").tensor);
  const run = async () => {
    const { o, lse } = attention(gpu, q!, k!, v!, map, of);
    const { dq, dk, dv } = attentionBackward(gpu, dO!, { q: q!, k: k!, v: v!, o, lse }, map, of);
    return await gpu.readBytes([o, lse, dq, dk, dv]);
  };
  assertEquals(await run(), await run());
});
