import {
  attention,
  attentionBackward,
  attentionBackwardKeys,
  attentionBackwardQueries,
  type AttentionShape,
  attentionStats,
} from "../../kernels/attention/attention.ts";
import {
  cutTables,
  firstKeys,
  makeAttentionMap,
  type RowLayout,
  uploadTables,
} from "../../kernels/attention/map.ts";
import { attentionBackwardReference, attentionReference } from "../../kernels/attention/reference.ts";
import { attentionTunables, type Part, variantFor } from "../../kernels/attention/variants.ts";
import { visitedByKernels, visitedPairs } from "../../kernels/attention/visits.ts";
import { DRY_INFO, TYPICAL_LIMITS } from "../../kernels/dry_device.ts";
import { Gpu } from "../../kernels/gpu.ts";
import type { Risk } from "../../kernels/refusal.ts";
import type { RowRange } from "../../kernels/shared/row_chunks.ts";
import { rowRanges, type Tensor } from "../../kernels/tensor.ts";
import type { Format, Kernel } from "../../kernels/wgsl.ts";
import { assert, assertClose, assertEquals, assertThrows, reduction } from "../support/assert_close.ts";
import { normal } from "../support/random.ts";
import { ALL_SHARINGS, sharingTest } from "../support/sharing.ts";

interface Case extends RowLayout, AttentionShape {
  readonly format?: Format;
  /** Factor of q, to make scores large. */
  readonly loud?: number;
  /** Factor of the scores; 1 / sqrt(headDim) unless given. */
  readonly scale?: number;
  /** Soft cap of the scores; none unless given. */
  readonly cap?: number;
}
type Name = "o" | "lse" | "dq" | "dk" | "dv";
type Inputs = Record<"q" | "k" | "v" | "dO", Float32Array>;

const MHA = { heads: 2, kvHeads: 2, headDim: 32 };
const ODD_KV = { heads: 6, kvHeads: 3, headDim: 32 };

function inputsOf({ rows, heads, kvHeads, headDim, loud = 1 }: Case, seed = 1): Inputs {
  const [wide, narrow] = [rows * heads * headDim, rows * kvHeads * headDim];
  return {
    q: normal(seed, wide, loud),
    k: normal(seed + 1, narrow),
    v: normal(seed + 2, narrow),
    dO: normal(seed + 3, wide),
  };
}

const STORE: Kernel = {
  name: "store",
  wgsl: `
struct Params { quads: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<Y>;
@group(0) @binding(2) var<uniform> p: Params;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < p.quads) { y[id.x] = store_Y(x[id.x]); }
}`,
};

/** A tensor of the format nearest to the values. */
function rounded(gpu: Gpu, shape: number[], values: Float32Array, format: Format): Tensor {
  const exact = gpu.tensor(shape, values);
  if (format === "f32") return exact;
  const tensor = gpu.empty(shape, format);
  for (const { start, end } of rowRanges([exact, tensor])) {
    const quads = (end - start) * exact.width / 4;
    gpu.run(STORE, { x: exact.slice(start, end), y: tensor.slice(start, end) }, {
      grid: [Math.ceil(quads / 64)],
      uniforms: { quads },
      formats: { Y: format },
    });
  }
  exact.free();
  return tensor;
}

/** Runs both passes; what it made it frees, so that a leak shows in the pool. */
async function onGpu(gpu: Gpu, of: Case, inputs: Inputs): Promise<Record<Name | keyof Inputs, Float32Array>> {
  const { rows, heads, kvHeads, headDim, format = "f32" } = of;
  const before = gpu.memory.liveBytes;
  const map = makeAttentionMap(gpu, of);
  const [q, dO] = [inputs.q, inputs.dO].map((x) => rounded(gpu, [rows, heads * headDim], x, format));
  const [k, v] = [inputs.k, inputs.v].map((x) => rounded(gpu, [rows, kvHeads * headDim], x, format));
  const saved = { q: q!, k: k!, v: v!, ...attention(gpu, q!, k!, v!, map, of, of) };
  const all = { ...saved, dO: dO!, ...attentionBackward(gpu, dO!, saved, map, of, of) };
  const values: Partial<Record<Name | keyof Inputs, Float32Array>> = {};
  for (const [name, tensor] of Object.entries(all)) {
    values[name as Name] = await gpu.read(tensor);
    tensor.free();
  }
  map.free();
  assertEquals(gpu.memory.liveBytes, before, "live bytes");
  return values as Record<Name | keyof Inputs, Float32Array>;
}

function inFloat64(of: Case, inputs: Inputs): Record<Name, Float64Array> {
  const tables = firstKeys(of);
  return {
    ...attentionReference(inputs, tables, of, of),
    ...attentionBackwardReference(inputs.dO, inputs, tables, of, of),
  };
}

const NAMES: readonly Name[] = ["o", "lse", "dq", "dk", "dv"];

async function assertMatches(gpu: Gpu, of: Case): Promise<void> {
  const actual = await onGpu(gpu, of, inputsOf(of));
  const expected = inFloat64(of, inputsOf(of));
  for (const name of NAMES) {
    const sums = name === "dk" || name === "dv" ? of.rows * of.heads / of.kvHeads : of.rows;
    assertClose(`${name} of ${JSON.stringify(of)}`, actual[name], expected[name], reduction(sums));
  }
}

for (const sharing of ALL_SHARINGS) {
  sharingTest(
    sharing,
    `Attention and its gradients match float64, ${sharing}: lengths around the blocks`,
    async () => {
      using gpu = await Gpu.open({ sharing, poison: true });
      for (const rows of [1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 97, 257]) {
        await assertMatches(gpu, { ...MHA, starts: [0], rows });
        await assertMatches(gpu, { ...MHA, starts: [0], rows, groupSize: Math.max(1, rows >> 2) });
      }
    },
  );

  sharingTest(sharing, `Attention and its gradients match float64, ${sharing}: who sees whom`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    const unequal = { starts: [0, 33, 34, 97], rows: 131 };
    for (
      const layout of [
        unequal,
        { ...unequal, groupSize: 16 },
        { ...unequal, groupSize: 13 },
        { starts: [0], rows: 131, documents: [0, 3, 40, 41, 72] },
        { ...unequal, groupSize: 24, documents: [0, 3, 40, 41, 72] },
      ]
    ) {
      await assertMatches(gpu, { ...MHA, ...layout });
      await assertMatches(gpu, { ...ODD_KV, ...layout });
    }
    await assertMatches(gpu, { heads: 4, kvHeads: 1, headDim: 32, ...unequal, groupSize: 16 });
    await assertMatches(gpu, { heads: 1, kvHeads: 1, headDim: 32, ...unequal });
  });

  sharingTest(sharing, `Attention and its gradients match float64, ${sharing}: head sizes`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    for (const headDim of [16, 64, 80, 96, 128, 256]) {
      await assertMatches(gpu, { heads: 4, kvHeads: 2, headDim, starts: [0, 30], rows: 97, groupSize: 24 });
    }
  });

  sharingTest(sharing, `Attention and its gradients match float64, ${sharing}: another scale`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    for (const scale of [0.0375, 0.5]) {
      await assertMatches(gpu, { ...ODD_KV, starts: [0, 30], rows: 97, groupSize: 24, scale });
    }
  });

  sharingTest(sharing, `Attention and its gradients match float64, ${sharing}: capped scores`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    const layout = { starts: [0, 30], rows: 97, groupSize: 24 };
    await assertMatches(gpu, { ...ODD_KV, ...layout, scale: 0.9, cap: 2 });
    await assertMatches(gpu, { ...MHA, ...layout, loud: 20, cap: 5 });
  });

  sharingTest(sharing, `Large scores stay finite, ${sharing}`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    const of = { ...MHA, starts: [0], rows: 97, groupSize: 32, loud: 100 };
    const actual = await onGpu(gpu, of, inputsOf(of));
    const expected = inFloat64(of, inputsOf(of));
    // Scores of some 2000 are known to 2e-4 in f32, and a probability no better than its score.
    for (const name of NAMES) {
      assertClose(name, actual[name], expected[name], { rtol: 2e-3, atol: name === "dk" ? 0.2 : 2e-3 });
    }
  });

  sharingTest(sharing, `16-bit formats lose no more than their rounding does, ${sharing}`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    const of = { heads: 4, kvHeads: 2, headDim: 32, starts: [0, 30], rows: 97, groupSize: 24 };
    for (const format of ["f32", "bf16", "f16"] as const) {
      const actual = await onGpu(gpu, { ...of, format }, inputsOf(of));
      const expected = inFloat64(of, actual);
      const plain = inFloat32(of, actual);
      for (const name of ["o", "dq", "dk", "dv"] as const) {
        const tensor = rounded(gpu, [1, plain[name].length], plain[name], format);
        const baseline = rootMeanSquare(await gpu.read(tensor), expected[name]);
        tensor.free();
        const error = rootMeanSquare(actual[name], expected[name]);
        assert(error <= 2 * baseline, `${name} in ${format}: error ${error}, baseline ${baseline}`);
      }
    }
  });

  sharingTest(sharing, `Gradients reach what a query sees and nothing else, ${sharing}`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    const of = { ...MHA, starts: [0, 30], rows: 97, groupSize: 24, documents: [0, 50] };
    const { first } = firstKeys(of);
    const { heads, rows, headDim } = of;
    const width = heads * headDim;
    // Each sees at least one key besides its own, in both tables: scores have no gradient where there is no choice.
    for (const query of [1, 29, 31, 53, 67, 96]) {
      const inputs = inputsOf(of);
      inputs.dO = inputs.dO.map((x, at) => Math.floor(at / width) === query ? x : 0);
      const { dq, dk, dv } = await onGpu(gpu, of, inputs);
      for (let h = 0; h < heads; h++) {
        for (let row = 0; row < rows; row++) {
          const at = row * width + h * headDim;
          const reached = [dq, dk, dv].map((x) => x.subarray(at, at + headDim).some((value) => value !== 0));
          const seen = first[h * rows + query]! <= row && row <= query;
          assertEquals(
            reached,
            [row === query, seen, seen],
            `o[${query}] to row ${row}, head ${h}: dq, dk, dv`,
          );
        }
      }
    }
  });

  sharingTest(sharing, `Kernels visit the blocks that are counted and no others, ${sharing}`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    const shape = { heads: 6, kvHeads: 6, headDim: 32 };
    for (const layout of [{ starts: [0], rows: 150 }, { starts: [0, 70], rows: 150, groupSize: 20 }]) {
      const of = { ...shape, ...layout };
      const reached = await rowsThatReadPoison(gpu, of, [0, 19, 67, 71, 110, 149]);
      const map = { tables: firstKeys(of) };
      for (const part of ["forward", "dq", "dkv"] as const) {
        const { block } = variantFor(gpu, part, of.headDim);
        for (const { head, poisoned, rows } of reached[part]) {
          const label = `${part}, rows that read row ${poisoned} of head ${head} in ${
            JSON.stringify(layout)
          }`;
          assertEquals(rows, rowsOfBlocksThatVisit(of, part, block.rows, { head, row: poisoned }), label);
        }
        assertEquals(visitedByKernels(gpu, map, of)[part], visitedPairs(map, of, { part, block }), part);
      }
    }
  });

  sharingTest(sharing, `Repeated runs give the same bits, ${sharing}`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    const of = { ...ODD_KV, starts: [0, 30], rows: 257, groupSize: 64 };
    const once = await onGpu(gpu, of, inputsOf(of));
    for (let repeat = 0; repeat < 4; repeat++) {
      const again = await onGpu(gpu, of, inputsOf(of));
      for (const name of NAMES) assert(sameBits(again[name], once[name]), `${name} changed`);
    }
  });

  sharingTest(
    sharing,
    `Tensors split over several bindings give the values of whole ones, ${sharing}`,
    async () => {
      const of = { heads: 4, kvHeads: 2, headDim: 32, starts: [0, 100], rows: 300 };
      // 512 bytes a row of q and 256 of k: five parts by three; half of it in bf16.
      using split = await Gpu.open({ sharing, poison: true, maxBindingBytes: 64 * 512 });
      assert(split.empty([of.rows, 128]).segments.length === 5, "q lies in five parts");
      assert(split.empty([of.rows, 64]).segments.length === 3, "k lies in three parts");
      await assertMatches(split, of);
      await assertMatches(split, { ...of, groupSize: 80 });
      await assertMatches(split, { ...of, groupSize: 7 });
      const half = await onGpu(split, { ...of, kvHeads: 4, format: "bf16" }, inputsOf({ ...of, kvHeads: 4 }));
      const expected = inFloat64({ ...of, kvHeads: 4 }, half);
      // Sums are rounded to 8 bits between parts.
      for (const name of NAMES) assertClose(name, half[name], expected[name], { rtol: 2e-2, atol: 2e-2 });
    },
  );

  sharingTest(sharing, `Work cut into several dispatches gives the values of one, ${sharing}`, async () => {
    const of = { heads: 4, kvHeads: 2, headDim: 32, starts: [0, 100], rows: 300 };
    const dispatches: string[] = [];
    // Of the longest sequence 128 rows of the forward pass, and 64 of the others.
    using cut = await Gpu.open({
      sharing,
      poison: true,
      mostWork: 2 * 128 * 4 * 32 * 200,
      onDispatch: ({ kernel }) => dispatches.push(kernel),
    });
    await assertMatches(cut, of);
    const count = (part: Part) => {
      const { name } = variantFor(cut, part, of.headDim).kernel;
      return dispatches.filter((kernel) => kernel === name).length;
    };
    assertEquals([count("forward"), count("dq"), count("dkv")], [3, 5, 5]);
    await assertMatches(cut, { ...of, groupSize: 80 });
  });

  sharingTest(sharing, `Gradients match finite differences, ${sharing}`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    const of = { heads: 4, kvHeads: 2, headDim: 4, starts: [0, 3], rows: 12, groupSize: 5 };
    const inputs = inputsOf(of);
    const actual = await onGpu(gpu, of, inputs);
    for (const name of ["q", "k", "v"] as const) {
      assertClose(`d${name}`, actual[`d${name}`], differences(of, inputs, name), reduction(of.rows));
    }
  });
}

Deno.test("Every variant matches float64", async () => {
  const of = {
    heads: 4,
    kvHeads: 2,
    headDim: 96,
    starts: [0, 30],
    rows: 150,
    groupSize: 50,
    documents: [0, 110],
  };
  using first = await Gpu.open();
  const tunables = attentionTunables(first).filter(({ headDim }) => headDim === 128);
  const rounds = Math.max(...tunables.map(({ variants }) => variants.length));
  for (let round = 0; round < rounds; round++) {
    const tuning = Object.fromEntries(
      tunables.map(({ key, variants }) => [key, variants[round % variants.length]!]),
    );
    using gpu = await Gpu.open({ tuning, poison: true });
    const chosen = tunables.map(({ part }) => variantFor(gpu, part, of.headDim).name);
    assertEquals(chosen, Object.values(tuning));
    await assertMatches(gpu, of);
    await assertMatches(gpu, { ...of, cap: 2 });
  }
});

Deno.test("Matrix units attend in 16 bits where there are some, each way until it is refused", () => {
  const matrices = [{ component: "f16", result: "f32", M: 16, N: 16, K: 16 }];
  const firstOf = (part: Part, format: Format, ...refused: Risk[]) => {
    const gpu = Gpu.dry({
      limits: TYPICAL_LIMITS,
      info: { ...DRY_INFO, matrices },
      refused: new Set(refused),
    });
    return variantFor(gpu, part, 128, format).name.split(" ")[0];
  };
  const parts = ["forward", "dq", "dkv"] as const;
  assertEquals(parts.map((part) => firstOf(part, "bf16")), ["matrix", "matrix", "matrix"]);
  assertEquals(parts.map((part) => firstOf(part, "f32")), ["workgroup", "workgroup", "workgroup"]);
  assertEquals(parts.map((part) => firstOf(part, "bf16", "attention by matrices")), [
    "workgroup",
    "matrix",
    "matrix",
  ]);
  assertEquals(
    parts.map((part) => firstOf(part, "bf16", "attention gradients by matrices")),
    ["matrix", "workgroup", "workgroup"],
  );
});

Deno.test("Tiles shrink to the memory of a workgroup; a variant that the device lacks is refused by name", async () => {
  using gpu = await Gpu.open({ sharing: "workgroup" });
  const memoryOf = (bytes: number) => {
    const limits = { maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupStorageSize: bytes };
    return attentionTunables({ ...traits(gpu), limits } as unknown as Gpu);
  };
  for (const { key, variants } of memoryOf(16384)) {
    assert(variants.some((name) => name.startsWith("workgroup 32x32")), `${key} has ${variants}`);
    assert(!variants.some((name) => name.startsWith("workgroup 64x64")), `${key} has ${variants}`);
  }
  for (const { key, variants } of memoryOf(32768)) {
    assert(variants.some((name) => name.startsWith("workgroup 64x64")), `${key} has ${variants}`);
  }
  using other = await Gpu.open({ tuning: { "attention dq 64": "workgroup 1x1" } });
  await assertThrows(
    () => variantFor(other, "dq", 64),
    `Cannot use the variant "workgroup 1x1" for "attention dq 64"`,
  );
});

/** What the choice of variants looks at, but for the device. */
function traits(
  { sharing, tuning, refused, info }: Gpu,
): Pick<Gpu, "sharing" | "tuning" | "refused" | "info"> {
  return { sharing, tuning, refused, info };
}

/** Rows of a head that came out NaN, as rows that read a poisoned one do: a hidden key has weight 0, and 0 NaN is NaN. */
interface Reached {
  readonly head: number;
  readonly poisoned: number;
  readonly rows: number[];
}

/** Makes one row of each head NaN: of k and v for forward and dq, of q and dO for dkv. */
async function rowsThatReadPoison(gpu: Gpu, of: Case, poisoned: number[]): Promise<Record<Part, Reached[]>> {
  const { rows, heads, headDim } = of;
  const shape = [rows, heads * headDim];
  const clean = inputsOf(of);
  const poison = (x: Float32Array) =>
    x.map((value, at) => {
      const head = Math.floor(at / headDim) % heads;
      return Math.floor(at / (heads * headDim)) === poisoned[head] ? NaN : value;
    });
  const [q, k, v, dO] = [clean.q, clean.k, clean.v, clean.dO].map((x) => gpu.tensor(shape, x));
  const [badQ, badK, badV, badDO] = [clean.q, clean.k, clean.v, clean.dO].map((x) =>
    gpu.tensor(shape, poison(x))
  );
  const map = makeAttentionMap(gpu, of);
  const { o, lse } = attention(gpu, q!, k!, v!, map, of);
  const stats = gpu.empty([rows, 2 * heads]);
  attentionStats(gpu, dO!, { o, lse }, of, stats);
  const all = { start: 0, end: rows };
  const byKeys = { q: q!, k: badK!, v: badV!, dO: dO!, stats };
  const byQueries = { q: badQ!, k: k!, v: v!, dO: badDO!, stats };
  const results = {
    forward: attention(gpu, q!, badK!, badV!, map, of).o,
    dq: attentionBackwardQueries(gpu, byKeys, map, of, all),
    dkv: attentionBackwardKeys(gpu, byQueries, map, of, all).dk,
  };
  const reached = async (result: Tensor) => {
    const values = await gpu.read(result);
    return poisoned.map((row, head) => ({
      head,
      poisoned: row,
      rows: Array.from({ length: rows }, (_, at) => at).filter((at) =>
        Number.isNaN(values[(at * heads + head) * headDim]!)
      ),
    }));
  };
  return {
    forward: await reached(results.forward),
    dq: await reached(results.dq),
    dkv: await reached(results.dkv),
  };
}

/** Rows of the blocks in which some row sees the given one, or one on either side of it. */
function rowsOfBlocksThatVisit(
  of: Case,
  part: Part,
  own: number,
  visited: { head: number; row: number },
): number[] {
  const { first, last } = firstKeys(of);
  const set = 2 * visited.head < of.heads ? 0 : of.rows;
  const rows: number[] = [];
  for (let start = 0; start < of.rows; start += own) {
    const end = Math.min(start + own, of.rows);
    const [from, to] = part === "dkv" ? [start, last[set + end - 1]!] : [first[set + start]!, end - 1];
    if (from <= visited.row && visited.row <= to) { for (let row = start; row < end; row++) rows.push(row); }
  }
  return rows;
}

/** Runs both passes over some rows of a batch with those before them that they see. */
async function onPart(gpu: Gpu, of: Case, inputs: Inputs, range: RowRange) {
  const { heads, kvHeads, headDim, rows } = of;
  const { tables, before } = cutTables(firstKeys(of), range);
  const map = uploadTables(gpu, tables, before);
  const [wide, narrow] = [heads * headDim, kvHeads * headDim];
  const queries = (x: Float32Array) =>
    gpu.tensor([range.end - range.start, wide], x.slice(range.start * wide, range.end * wide));
  // Rows that fill up the ones that are seen have zeros, as whoever writes them must.
  const keys = (x: Float32Array) => {
    const part = new Float32Array((before + range.end - range.start) * narrow);
    const from = Math.max(0, range.start - before);
    part.set(x.subarray(from * narrow, range.end * narrow), (from - range.start + before) * narrow);
    return gpu.tensor([part.length / narrow, narrow], part);
  };
  const [q, dO] = [queries(inputs.q), queries(inputs.dO)];
  const [k, v] = [keys(inputs.k), keys(inputs.v)];
  const saved = { q, k, v, ...attention(gpu, q, k, v, map, of) };
  const gradients = attentionBackward(gpu, dO, saved, map, of);
  const offset = range.start - before;
  /** The values of all rows of the batch, 0 where the part has none. */
  const placed = async (x: Tensor, first: number) => {
    const all = new Float32Array(rows * x.width);
    const values = await gpu.read(x);
    const skip = Math.max(0, -first) * x.width;
    assert(values.subarray(0, skip).every((value) => value === 0), "rows that nothing sees have gradients");
    all.set(values.subarray(skip), Math.max(0, first) * x.width);
    return all;
  };
  return {
    o: await placed(saved.o, range.start),
    lse: await placed(saved.lse, range.start),
    dq: await placed(gradients.dq, range.start),
    dk: await placed(gradients.dk, offset),
    dv: await placed(gradients.dv, offset),
  };
}

for (const sharing of ALL_SHARINGS) {
  sharingTest(
    sharing,
    `Parts of a batch, with the keys before them, give together what it gives: ${sharing}`,
    async () => {
      using gpu = await Gpu.open({ sharing, poison: true });
      const layouts = [
        { starts: [0], rows: 200, groupSize: 50, cuts: [50, 150] },
        { starts: [0, 33], rows: 210, groupSize: 25, documents: [0, 33, 140], cuts: [25, 83, 133, 183] },
        { starts: [0], rows: 300, window: 70, cuts: [100, 171] },
        { starts: [0], rows: 90, cuts: [40] },
      ];
      for (const { cuts, ...layout } of layouts) {
        const of = { ...ODD_KV, ...layout };
        const expected = inFloat64(of, inputsOf(of));
        const bounds = [0, ...cuts, of.rows];
        const parts: Record<Name, Float32Array>[] = [];
        for (const [i, start] of bounds.slice(0, -1).entries()) {
          parts.push(await onPart(gpu, of, inputsOf(of), { start, end: bounds[i + 1]! }));
        }
        for (const name of NAMES) {
          const sum = expected[name].map((_, at) => parts.reduce((sum, part) => sum + part[name][at]!, 0));
          assertClose(`${name} of ${JSON.stringify(of)}`, sum, expected[name], reduction(2 * of.rows));
        }
      }
    },
  );
}

Deno.test("The float64 gradients match finite differences", () => {
  const of = { heads: 6, kvHeads: 3, headDim: 4, starts: [0, 5], rows: 14, groupSize: 6, documents: [0, 9] };
  const inputs = inputsOf(of);
  for (const scoring of [{}, { scale: 0.9, cap: 2 }]) {
    const scored = { ...of, ...scoring };
    const exact = inFloat64(scored, inputs);
    for (const name of ["q", "k", "v"] as const) {
      const expected = differences(scored, inputs, name);
      assertClose(`d${name}`, exact[`d${name}`], expected, { rtol: 1e-7, atol: 1e-8 });
    }
  }
});

Deno.test("attention() refuses tensors that do not fit together", async () => {
  using gpu = await Gpu.open();
  const map = makeAttentionMap(gpu, { starts: [0], rows: 8 });
  const q = gpu.zeros([8, 64]);
  const other = gpu.zeros([9, 64]);
  const half = gpu.zeros([8, 64], "bf16");
  await assertThrows(() => attention(gpu, q, other, q, map, MHA), "k must be (8, 64) f32, got (9, 64) f32");
  await assertThrows(() => attention(gpu, q, q, half, map, MHA), "v must be (8, 64) f32, got (8, 64) bf16");
  await assertThrows(
    () => attention(gpu, q, q, q, map, { heads: 3, kvHeads: 2, headDim: 32 }),
    "kv heads must divide the heads",
  );
});

/** Central differences of sum(dO * o) by one of the inputs, in float64. */
function differences(of: Case, inputs: Inputs, name: "q" | "k" | "v"): Float64Array {
  const tables = firstKeys(of);
  const values = { q: inputs.q, k: inputs.k, v: inputs.v, [name]: Float64Array.from(inputs[name]) };
  const moved = values[name] as unknown as Float64Array;
  const loss = () =>
    attentionReference(values, tables, of, of).o.reduce((sum, o, i) => sum + o * inputs.dO[i]!, 0);
  return moved.map((at, i) => {
    const step = 1e-5;
    moved[i] = at + step;
    const above = loss();
    moved[i] = at - step;
    const below = loss();
    moved[i] = at;
    return (above - below) / (2 * step);
  });
}

/** The textbook algorithm with every step rounded to f32: what a plain program would lose. */
function inFloat32(of: Case, { q, k, v, dO }: Inputs): Record<"o" | "dq" | "dk" | "dv", Float32Array> {
  const { heads, kvHeads, headDim, rows } = of;
  const { first } = firstKeys(of);
  const f = Math.fround;
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, c) => f(sum + f(x * b[c]!)), 0);
  const add = (to: Float32Array, factor: number, x: Float32Array) => {
    for (let c = 0; c < headDim; c++) to[c]! += f(factor * x[c]!);
  };
  const [o, dq] = [new Float32Array(q.length), new Float32Array(q.length)];
  const [dk, dv] = [new Float32Array(k.length), new Float32Array(k.length)];
  const scale = f(1 / Math.sqrt(headDim));
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < rows; i++) {
      const mine = (x: Float32Array) => x.subarray((i * heads + h) * headDim).subarray(0, headDim);
      const kvHead = Math.floor(h / (heads / kvHeads));
      const of = (x: Float32Array, j: number) =>
        x.subarray((j * kvHeads + kvHead) * headDim).subarray(0, headDim);
      const from = first[(2 * h < heads ? 0 : rows) + i]!;
      const keys = Array.from({ length: i + 1 - from }, (_, n) => from + n);
      const scores = keys.map((j) => f(dot(mine(q), of(k, j)) * scale));
      const most = Math.max(...scores);
      const weights = scores.map((x) => f(Math.exp(f(x - most))));
      const sum = weights.reduce((a, b) => f(a + b));
      const p = weights.map((x) => f(x / sum));
      keys.forEach((j, n) => add(mine(o), p[n]!, of(v, j)));
      const dp = keys.map((j) => dot(mine(dO), of(v, j)));
      const mean = dot(mine(dO), mine(o));
      keys.forEach((j, n) => {
        const ds = f(f(p[n]! * f(dp[n]! - mean)) * scale);
        add(mine(dq), ds, of(k, j));
        add(of(dk, j), ds, mine(q));
        add(of(dv, j), p[n]!, mine(dO));
      });
    }
  }
  return { o, dq, dk, dv };
}

function rootMeanSquare(actual: Float32Array, expected: Float64Array): number {
  return Math.sqrt(actual.reduce((sum, x, i) => sum + (x - expected[i]!) ** 2, 0) / actual.length);
}

function sameBits(a: Float32Array, b: Float32Array): boolean {
  const [x, y] = [a, b].map((values) => new Uint32Array(values.buffer, values.byteOffset, values.length));
  return x!.every((bits, i) => bits === y![i]);
}
