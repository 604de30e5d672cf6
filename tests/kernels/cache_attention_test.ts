import { attention } from "../../kernels/attention/attention.ts";
import { makeAttentionMap } from "../../kernels/attention/map.ts";
import { cacheAttention } from "../../kernels/cache_attention/cache_attention.ts";
import {
  appendToCache,
  type CacheFormat,
  cacheRow,
  dequantiseRows,
  quantiseRows,
} from "../../kernels/cache_attention/cache_rows.ts";
import { cacheAttentionReference, quantiseRowsReference } from "../../kernels/cache_attention/reference.ts";
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";
import { ropeReference } from "../../kernels/rope/reference.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { toFloat32 } from "../../kernels/transfers.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { assertRounded, inFormat } from "../support/numeric.ts";
import { integers, normal } from "../support/random.ts";
import { ALL_SHARINGS, SHARINGS, sharingTest } from "../support/sharing.ts";

interface Case {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly capacity: number;
  /** Positions of the new rows of each sequence. */
  readonly positions: readonly (readonly number[])[];
  readonly format: Format;
  readonly cacheFormat?: CacheFormat;
  readonly window?: number;
  readonly scale?: number;
  readonly cap?: number;
}

/**
 * One to three sequences of different lengths, one or several new rows, heads alone and shared, sizes off any tile, keys
 * whole and split.
 */
const CASES: Case[] = [
  { heads: 4, kvHeads: 4, headDim: 16, capacity: 64, positions: [[0]], format: "f32" },
  { heads: 4, kvHeads: 2, headDim: 32, capacity: 128, positions: [[77]], format: "f32" },
  { heads: 8, kvHeads: 1, headDim: 20, capacity: 960, positions: [[900], [5]], format: "bf16" },
  { heads: 6, kvHeads: 2, headDim: 64, capacity: 320, positions: [[130], [319], [64]], format: "f16" },
  { heads: 2, kvHeads: 1, headDim: 128, capacity: 192, positions: [[150, 151, 152]], format: "f32" },
  { heads: 10, kvHeads: 1, headDim: 8, capacity: 64, positions: [[3, 4], [62, 63]], format: "f32" },
  { heads: 4, kvHeads: 2, headDim: 32, capacity: 640, positions: [[600], [7]], format: "f32", window: 50 },
  { heads: 4, kvHeads: 2, headDim: 32, capacity: 128, positions: [[77], [9]], format: "f32", scale: 0.5 },
  {
    heads: 4,
    kvHeads: 2,
    headDim: 24,
    capacity: 128,
    positions: [[77], [9]],
    format: "f32",
    window: 40,
    cap: 1.5,
  },
  { heads: 4, kvHeads: 2, headDim: 64, capacity: 448, positions: [[430], [7]], format: "f32", window: 260 },
  {
    heads: 2,
    kvHeads: 1,
    headDim: 16,
    capacity: 192,
    positions: [[150, 151, 152]],
    format: "f32",
    window: 1,
  },
  {
    heads: 3,
    kvHeads: 3,
    headDim: 80,
    capacity: 256,
    positions: [[255]],
    format: "f32",
    cacheFormat: "bf16",
  },
  { heads: 4, kvHeads: 4, headDim: 16, capacity: 64, positions: [[0]], format: "f32", cacheFormat: "q8" },
  {
    heads: 8,
    kvHeads: 1,
    headDim: 20,
    capacity: 320,
    positions: [[300], [5]],
    format: "bf16",
    cacheFormat: "q8",
  },
  {
    heads: 4,
    kvHeads: 2,
    headDim: 32,
    capacity: 576,
    positions: [[575], [130]],
    format: "f32",
    cacheFormat: "q8",
  },
  {
    heads: 2,
    kvHeads: 1,
    headDim: 128,
    capacity: 192,
    positions: [[150, 151, 152]],
    format: "f16",
    cacheFormat: "q8",
  },
  {
    heads: 3,
    kvHeads: 3,
    headDim: 4,
    capacity: 128,
    positions: [[3, 4], [126, 127]],
    format: "f32",
    cacheFormat: "q8",
  },
  {
    heads: 4,
    kvHeads: 2,
    headDim: 80,
    capacity: 256,
    positions: [[210, 211], [7, 8]],
    format: "f32",
    cacheFormat: "q8",
    window: 50,
    cap: 2,
  },
];

/** A tensor of cache rows, and the float64 values that it holds. */
async function cacheRows(
  gpu: Gpu,
  [rows, values]: readonly [rows: number, values: Float32Array],
  { kvHeads, headDim, format }: { kvHeads: number; headDim: number; format: CacheFormat },
): Promise<{ tensor: Tensor; values: Float64Array }> {
  if (format !== "q8") return inFormat(gpu, [rows, kvHeads * headDim], values, format);
  const { width, dtype } = cacheRow("q8", { kvHeads, headDim });
  const tensor = gpu.empty([rows, width], dtype);
  quantiseRows(gpu, gpu.tensor([rows, kvHeads * headDim], values), tensor);
  const { codes, scales } = decode(await gpu.readU32(tensor), headDim);
  return { tensor, values: codes.map((code, i) => code * scales[Math.floor(i / headDim)]!) };
}

/** Codes and scales of heads in 8 bits. */
function decode(words: Uint32Array, headDim: number): { codes: Float64Array; scales: Float64Array } {
  const headBytes = headDim + 4;
  const view = new DataView(words.buffer, words.byteOffset, words.byteLength);
  const heads = words.byteLength / headBytes;
  return {
    codes: Float64Array.from(
      { length: heads * headDim },
      (_, i) => view.getInt8(Math.floor(i / headDim) * headBytes + i % headDim),
    ),
    scales: Float64Array.from(
      { length: heads },
      (_, head) => view.getFloat32(head * headBytes + headDim, true),
    ),
  };
}

/**
 * Fails unless rows in 8 bits have the scales of the values and their nearest codes.
 * @param slack by which quotients may be off: one as near to a midpoint may fall either way
 */
function assertNearest(
  label: string,
  words: Uint32Array,
  values: ArrayLike<number>,
  headDim: number,
  slack = 1e-4,
): void {
  const { codes, scales } = decode(words, headDim);
  const expected = quantiseRowsReference(values, headDim);
  assertClose(`${label}: scales`, scales, expected.scales, { rtol: slack / 250, atol: 0 });
  const quotients = codes.map((_, i) => values[i]! / (expected.scales[Math.floor(i / headDim)]! || 1));
  const nearest = expected.codes.map((code, i) =>
    Math.abs(Math.abs(quotients[i]! - Math.trunc(quotients[i]!)) - 0.5) < slack ? codes[i]! : code
  );
  assertClose(`${label}: codes`, codes, nearest, { rtol: 0, atol: 0 });
  assertClose(`${label}: values`, codes, quotients, { rtol: 0, atol: 0.5 + slack });
}

async function check(gpu: Gpu, c: Case, seed: number): Promise<void> {
  const { heads, kvHeads, headDim, capacity, format, cacheFormat = format, window, scale, cap } = c;
  const keys = c.positions.length * capacity;
  const rows = c.positions.flat().length;
  const q = inFormat(gpu, [rows, heads * headDim], normal(seed, rows * heads * headDim), format);
  const width = kvHeads * headDim;
  // What no query may see is huge: a key too many shows.
  const limited = (values: Float32Array) =>
    values.map((value, i) => {
      const row = Math.floor(i / width);
      return row % capacity > c.positions[Math.floor(row / capacity)]!.at(-1)! ? 1e4 : value;
    });
  const held = { kvHeads, headDim, format: cacheFormat };
  const k = await cacheRows(gpu, [keys, limited(normal(seed + 1, keys * width))], held);
  const v = await cacheRows(gpu, [keys, limited(normal(seed + 2, keys * width))], held);
  const positions = Uint32Array.from(c.positions.flat());
  const o = cacheAttention(
    gpu,
    q.tensor,
    { k: k.tensor, v: v.tensor, capacity },
    gpu.tensor([rows], positions),
    { heads, kvHeads, headDim },
    { longest: Math.max(...positions) + 1, window, scale, cap },
  );
  const shape = { heads, kvHeads, headDim };
  const saved = { k: k.values, v: v.values, capacity };
  const expected = cacheAttentionReference(
    q.values,
    saved,
    positions,
    shape,
    { ...(window !== undefined && { window }), ...(scale !== undefined && { scale }), cap },
  );
  const label = `${heads}/${kvHeads} heads of ${headDim}, positions ${JSON.stringify(c.positions)}`;
  if (format === "f32") assertClose(label, await gpu.read(o), expected, { rtol: 2e-6, atol: 2e-6 });
  else assertRounded(label, await gpu.read(o), expected, format);
  o.free();
}

const WAYS: Record<string, GpuOptions> = {
  "subgroup sharing": { sharing: "subgroup" },
  "workgroup sharing": { sharing: "workgroup" },
  "subgroup sharing, bindings of 64 KiB": { sharing: "subgroup", maxBindingBytes: 64 * 1024 },
  "workgroup sharing, bindings of 64 KiB": { sharing: "workgroup", maxBindingBytes: 64 * 1024 },
};

for (const [way, options] of Object.entries(WAYS)) {
  sharingTest(options.sharing!, `New rows see the keys up to their own, ${way}`, async () => {
    using gpu = await Gpu.open({ poison: true, ...options });
    for (const [i, c] of CASES.entries()) {
      // 64 rows of a cache are the least that a binding holds.
      const rowBytes = c.kvHeads * c.headDim * 4;
      if (options.maxBindingBytes && 64 * rowBytes > options.maxBindingBytes) continue;
      await check(gpu, c, 10 * i);
    }
  });
}

for (const sharing of ALL_SHARINGS) {
  sharingTest(sharing, `Long contexts are split and put together again, ${sharing} sharing`, async () => {
    using gpu = await Gpu.open({ poison: true, sharing });
    await check(gpu, {
      heads: 2,
      kvHeads: 1,
      headDim: 16,
      capacity: 4160,
      positions: [[4159], [1000]],
      format: "f32",
    }, 5);
  });

  sharingTest(sharing, `Few keys take one dispatch, and many two, ${sharing} sharing`, async () => {
    const kernels: string[] = [];
    using gpu = await Gpu.open({ poison: true, sharing, onDispatch: ({ kernel }) => kernels.push(kernel) });
    for (const cacheFormat of ["f32", "q8"] as const) {
      // 16,384 elements of a head's keys are the most that are not split.
      const few = [[255], [256], [300, 256], [300, 257]] as const;
      for (const [i, [last, window]] of few.entries()) {
        const dispatches = i % 2 + 1;
        const [heads, headDim, capacity] = [2, 64, 320];
        const held = { kvHeads: 2, headDim, format: cacheFormat };
        const [k, v] = [
          await cacheRows(gpu, [capacity, normal(1, 2 * capacity * headDim)], held),
          await cacheRows(gpu, [capacity, normal(2, 2 * capacity * headDim)], held),
        ];
        kernels.length = 0;
        const q = gpu.tensor([1, heads * headDim], normal(3, heads * headDim));
        const at = gpu.tensor([1], Uint32Array.of(last));
        const shape = { heads, kvHeads: 2, headDim };
        cacheAttention(gpu, q, { k: k.tensor, v: v.tensor, capacity }, at, shape, {
          longest: last + 1,
          window,
        });
        assertEquals(
          kernels.length,
          dispatches,
          `${cacheFormat}, ${last + 1} keys, window ${window}: ${kernels}`,
        );
      }
    }
  });

  sharingTest(sharing, `Scores far apart do not overflow, ${sharing} sharing`, async () => {
    using gpu = await Gpu.open({ poison: true, sharing });
    const [headDim, keys, capacity] = [8, 200, 256];
    const q = new Float32Array(headDim).fill(30);
    const k = normal(3, capacity * headDim, 20);
    const v = normal(4, capacity * headDim);
    const shape = { heads: 1, kvHeads: 1, headDim };
    const o = cacheAttention(
      gpu,
      gpu.tensor([1, headDim], q),
      { k: gpu.tensor([capacity, headDim], k), v: gpu.tensor([capacity, headDim], v), capacity },
      gpu.tensor([1], Uint32Array.of(keys - 1)),
      shape,
      { longest: keys },
    );
    const expected = cacheAttentionReference(q, { k, v, capacity }, [keys - 1], shape);
    assertClose("o", await gpu.read(o), expected, { rtol: 1e-3, atol: 1e-3 });
  });
}

interface NewRowsCase {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Elements of a head that rotate; none unless given. */
  readonly rotaryDim?: number;
  readonly format: Format;
  readonly capacity: number;
  /** Positions of the new rows of each sequence. */
  readonly positions: readonly (readonly number[])[];
}

/** Halves of what rotates that quads divide and that they do not; positions at the ends of a sequence, and past them. */
const NEW_ROWS: NewRowsCase[] = [
  { heads: 4, kvHeads: 2, headDim: 4, rotaryDim: 4, format: "f32", capacity: 64, positions: [[0]] },
  {
    heads: 6,
    kvHeads: 2,
    headDim: 20,
    rotaryDim: 20,
    format: "bf16",
    capacity: 64,
    positions: [[7, 63], [0, 1]],
  },
  {
    heads: 3,
    kvHeads: 3,
    headDim: 80,
    rotaryDim: 20,
    format: "f16",
    capacity: 64,
    positions: [[63], [64], [5]],
  },
  {
    heads: 2,
    kvHeads: 1,
    headDim: 256,
    rotaryDim: 64,
    format: "f32",
    capacity: 64,
    positions: [[62, 63, 64]],
  },
  {
    heads: 5,
    kvHeads: 1,
    headDim: 128,
    rotaryDim: 128,
    format: "bf16",
    capacity: 128,
    positions: [[100], [127]],
  },
  {
    heads: 3,
    kvHeads: 1,
    headDim: 100,
    rotaryDim: 100,
    format: "f32",
    capacity: 64,
    positions: [[9], [3], [0]],
  },
  {
    heads: 7,
    kvHeads: 7,
    headDim: 12,
    rotaryDim: 8,
    format: "f16",
    capacity: 64,
    positions: [[11, 12, 13, 14, 15]],
  },
  {
    heads: 2,
    kvHeads: 2,
    headDim: 44,
    format: "bf16",
    capacity: 64,
    positions: [[11, 12, 64], [63, 70, 62]],
  },
  { heads: 1, kvHeads: 1, headDim: 4, format: "f32", capacity: 64, positions: [[63]] },
];

/** Rows that a binding does not hold, of two sequences. */
const MANY_ROWS: NewRowsCase[] = [32, undefined].map((rotaryDim) => ({
  heads: 4,
  kvHeads: 2,
  headDim: 32,
  ...(rotaryDim && { rotaryDim }),
  format: "f32",
  capacity: 192,
  positions: [100, 3].map((first) => Array.from({ length: 97 }, (_, i) => first + i)),
}));

/** A tensor, and the float64 values that it holds. */
type Given = ReturnType<typeof inFormat>;

const CACHE_FORMATS: readonly CacheFormat[] = ["f32", "bf16", "f16", "q8"];

/** Angles of base 10 for positions from 0 on. */
function angles(gpu: Gpu, positions: number, rotaryDim: number) {
  const half = rotaryDim / 2;
  const of = (turn: (angle: number) => number) =>
    Float32Array.from(
      { length: positions * half },
      (_, at) => turn(Math.floor(at / half) / 10 ** (at % half / half)),
    );
  const [cos, sin] = [of(Math.cos), of(Math.sin)];
  return {
    values: [cos, sin] as const,
    table: { cos: gpu.tensor([positions, half], cos), sin: gpu.tensor([positions, half], sin) },
  };
}

/** Checks queries, what the cache gets, and that its other rows stay as they are. */
async function checkNewRows(gpu: Gpu, c: NewRowsCase, cacheFormat: CacheFormat): Promise<void> {
  const { heads, kvHeads, headDim, rotaryDim, format, capacity } = c;
  const positions = c.positions.flat();
  const rows = positions.length;
  const [q, k, v] = [heads, kvHeads, kvHeads].map((count, i) =>
    inFormat(gpu, [rows, count * headDim], normal(i + 1, rows * count * headDim), format)
  ) as [Given, Given, Given];
  const { width } = cacheRow(cacheFormat, { kvHeads, headDim });
  const shape = [c.positions.length * capacity, width];
  const size = shape[0]! * width;
  const [cachedK, cachedV] = [4, 5].map((seed) =>
    cacheFormat === "q8"
      ? gpu.tensor(shape, integers(seed, size, 2 ** 32))
      : inFormat(gpu, shape, normal(seed, size), cacheFormat).tensor
  ) as [Tensor, Tensor];
  const before = await gpu.readBytes([cachedK, cachedV]);
  const { values: [cos, sin], table } = angles(gpu, Math.max(...positions) + 1, rotaryDim ?? 4);
  appendToCache(
    gpu,
    { q: q.tensor, k: k.tensor, v: v.tensor },
    { k: cachedK, v: cachedV, capacity },
    gpu.tensor([rows], Uint32Array.from(positions)),
    { heads, kvHeads, headDim },
    rotaryDim === undefined ? null : table,
  );
  const rotated = (x: Float64Array) =>
    rotaryDim === undefined ? x : ropeReference(x, cos, sin, positions, headDim, rotaryDim);
  const label =
    `${heads}/${kvHeads} heads of ${headDim}, ${rotaryDim} rotate, ${format}, cache in ${cacheFormat}`;
  if (rotaryDim === undefined) assertEquals([...await gpu.read(q.tensor)], [...q.values], `${label}: q`);
  else assertRounded(`${label}: q`, await gpu.read(q.tensor), rotated(q.values), format);
  const after = await gpu.readBytes([cachedK, cachedV]);
  const bytes = cachedK.rowBytes;
  for (const [i, expected] of [rotated(k.values), v.values].entries()) {
    const name = `${label}: ${"kv"[i]}`;
    const wanted = before[i]!.slice();
    const of = kvHeads * headDim;
    const [got, reference]: [Uint8Array[], number[]] = [[], []];
    positions.forEach((position, row) => {
      if (position >= capacity) return;
      const at = (Math.floor(row * c.positions.length / rows) * capacity + position) * bytes;
      const written = after[i]!.slice(at, at + bytes);
      wanted.set(written, at);
      got.push(written);
      reference.push(...expected.subarray(row * of, (row + 1) * of));
    });
    assertEquals(after[i]!.findIndex((byte, at) => byte !== wanted[at]), -1, `${name}: another row changed`);
    const written = Uint8Array.from(got.flatMap((row) => [...row]));
    if (cacheFormat === "q8") assertNearest(name, new Uint32Array(written.buffer), reference, headDim, 1e-3);
    else assertRounded(name, toFloat32(written, cacheFormat), reference, cacheFormat);
  }
  for (const tensor of [q.tensor, k.tensor, v.tensor, cachedK, cachedV]) tensor.free();
}

for (const maxBindingBytes of [2 ** 30, 64 * 256 * 4]) {
  Deno.test(`New rows are rotated and land at their positions, bindings of ${maxBindingBytes} bytes`, async () => {
    using gpu = await Gpu.open({ poison: true, maxBindingBytes });
    for (const [i, c] of NEW_ROWS.entries()) {
      // 64 rows of a cache are the least that a binding holds, with 8 bits' scale beside them.
      if (64 * c.kvHeads * (c.headDim + 4) * 4 > maxBindingBytes) continue;
      for (const cacheFormat of [CACHE_FORMATS[i % 3]!, "q8"] as const) {
        await checkNewRows(gpu, c, cacheFormat);
      }
    }
  });
}

Deno.test("New rows in several bindings belong to their sequences, and rotate once", async () => {
  using gpu = await Gpu.open({ poison: true, maxBindingBytes: 64 * 128 * 4 });
  for (const c of MANY_ROWS) {
    for (const cacheFormat of CACHE_FORMATS) await checkNewRows(gpu, c, cacheFormat);
  }
});

for (const maxBindingBytes of [2 ** 30, 64 * 56]) {
  Deno.test(`In 8 bits new rows become the nearest codes, bindings of ${maxBindingBytes} bytes`, async () => {
    for (const [kvHeads, headDim] of [[2, 8], [1, 44], [3, 4], [1, 256]] as const) {
      // 64 rows of a cache are the least that a binding holds.
      if (64 * kvHeads * (headDim + 4) > maxBindingBytes) continue;
      using gpu = await Gpu.open({
        poison: true,
        maxBindingBytes: Math.max(maxBindingBytes, 64 * kvHeads * headDim * 4),
      });
      const capacity = 128;
      const positions = [128, 71, 127, 3];
      const size = 4 * kvHeads * headDim;
      // The second row is zeros; the third's keys are small and its values large.
      const [k, v] = [3, 4].map((seed) =>
        normal(seed, size).map((value, i) =>
          value * [1, 0, seed === 3 ? 1e-9 : 1e9, 1][Math.floor(4 * i / size)]!
        )
      ) as [Float32Array, Float32Array];
      const { width, dtype } = cacheRow("q8", { kvHeads, headDim });
      const cache = {
        k: gpu.zeros([2 * capacity, width], dtype),
        v: gpu.zeros([2 * capacity, width], dtype),
        capacity,
      };
      const tensors = [k, v].map((values) => gpu.tensor([4, kvHeads * headDim], values));
      const q = gpu.tensor([4, kvHeads * headDim], normal(5, size));
      const rows = { q, k: tensors[0]!, v: tensors[1]! };
      const shape = { heads: kvHeads, kvHeads, headDim };
      appendToCache(gpu, rows, cache, gpu.tensor([4], Uint32Array.from(positions)), shape, null);
      for (const [name, values, tensor] of [["k", k, cache.k], ["v", v, cache.v]] as const) {
        const words = await gpu.readU32(tensor);
        const { codes, scales } = decode(words, headDim);
        ([[1, 71], [2, capacity + 127], [3, capacity + 3]] as const).forEach(([row, at]) => {
          const given = values.subarray(row * kvHeads * headDim, (row + 1) * kvHeads * headDim);
          assertNearest(`${name} of row ${row}`, words.slice(at * width, (at + 1) * width), given, headDim);
          words.fill(0, at * width, (at + 1) * width);
        });
        // The first row is past its sequence's capacity and left out.
        assert(words.every((word) => word === 0), `${name}: other rows were written`);
        const floats = dequantiseRows(gpu, tensor, { kvHeads, headDim }, "f32");
        const products = codes.map((code, i) => Math.fround(code * scales[Math.floor(i / headDim)]!));
        // 0 and -0 are equal here.
        assertClose(`${name} as floats`, await gpu.read(floats), products, { rtol: 0, atol: 0 });
      }
    }
  });
}

Deno.test("In 8 bits keys and values that are not finite give attention that is not", async () => {
  const shape = { heads: 1, kvHeads: 1, headDim: 8 };
  for (const sharing of SHARINGS) {
    for (const [name, bad] of [["k", NaN], ["k", Infinity], ["v", NaN], ["v", -Infinity]] as const) {
      using gpu = await Gpu.open({ poison: true, sharing });
      const positions = gpu.tensor([3], Uint32Array.of(0, 1, 2));
      const { width, dtype } = cacheRow("q8", shape);
      const cache = { k: gpu.empty([64, width], dtype), v: gpu.empty([64, width], dtype), capacity: 64 };
      const [k, v] = [normal(1, 24), normal(2, 24)];
      ({ k, v })[name][13] = bad;
      const [q, newK, newV] = [normal(3, 24), k, v].map((values) => gpu.tensor([3, 8], values));
      appendToCache(gpu, { q: q!, k: newK!, v: newV! }, cache, positions, shape, null);
      const o = cacheAttention(gpu, q!, cache, positions, shape, {
        longest: 3,
      });
      const values = await gpu.read(o);
      assert(values.subarray(16).every(Number.isNaN), `${name} ${bad}: the last row`);
    }
  }
});

Deno.test("What 8 bits change in attention is within its bound", async () => {
  using gpu = await Gpu.open({ poison: true });
  const shape = { heads: 4, kvHeads: 2, headDim: 64 };
  const [capacity, last, width] = [1024, 1000, 128];
  const q = normal(1, 256);
  const [k, v] = [normal(2, capacity * width), normal(3, capacity * width)];
  const row = cacheRow("q8", shape);
  const cache = {
    k: gpu.empty([capacity, row.width], row.dtype),
    v: gpu.empty([capacity, row.width], row.dtype),
    capacity,
  };
  quantiseRows(gpu, gpu.tensor([capacity, width], k), cache.k);
  quantiseRows(gpu, gpu.tensor([capacity, width], v), cache.v);
  const positions = gpu.tensor([1], Uint32Array.of(last));
  const o = await gpu.read(
    cacheAttention(gpu, gpu.tensor([1, 256], q), cache, positions, shape, { longest: last + 1 }),
  );
  const exact = cacheAttentionReference(q, { k, v, capacity }, [last], shape);
  // Half a step each: scores move by d = |q|_1 s_k / 2 / sqrt(D) at most, weights by a factor within e^(+-2 d), values by
  // s_v / 2.
  const largest = (values: Float32Array) =>
    values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  for (let head = 0; head < 4; head++) {
    const norm = q.subarray(64 * head, 64 * head + 64).reduce((sum, value) => sum + Math.abs(value), 0);
    const d = norm * largest(k) / 127 / 2 / 8;
    const bound = (Math.exp(2 * d) - 1) * largest(v) + largest(v) / 127 / 2;
    const [from, to] = [64 * head, 64 * head + 64];
    assertClose(`head ${head}`, o.subarray(from, to), exact.subarray(from, to), { rtol: 0, atol: bound });
  }
  // The errors of many keys cancel: far below the bound, and not nothing.
  const rms = (values: Float64Array) =>
    Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length);
  const error = rms(exact.map((value, i) => value - o[i]!)) / rms(exact);
  assert(error > 1e-3 && error < 0.03, `relative error ${error}`);
});

Deno.test("Attention of the last rows alone is that of all rows, cut", async () => {
  const [rows, width, shape] = [150, 32, { heads: 4, kvHeads: 2, headDim: 8 }];
  for (const sharing of SHARINGS) {
    using gpu = await Gpu.open({ poison: true, sharing, maxBindingBytes: 64 * width * 4 });
    const q = normal(1, rows * width);
    const k = gpu.tensor([rows, width / 2], normal(2, rows * width / 2));
    const v = gpu.tensor([rows, width / 2], normal(3, rows * width / 2));
    const map = makeAttentionMap(gpu, { rows, starts: [0] });
    const whole = await gpu.read(attention(gpu, gpu.tensor([rows, width], q), k, v, map, shape).o);
    for (const last of [1, 37, 130]) {
      const tail = gpu.tensor([last, width], q.subarray((rows - last) * width));
      const o = await gpu.read(attention(gpu, tail, k, v, map, shape).o);
      assertClose(`${last} rows`, o, whole.subarray((rows - last) * width), { rtol: 1e-6, atol: 1e-6 });
    }
  }
});

Deno.test("A cache and rows that do not belong together are refused", async () => {
  using gpu = await Gpu.open();
  const shape = { heads: 2, kvHeads: 1, headDim: 8 };
  const cache = { k: gpu.zeros([128, 8]), v: gpu.zeros([128, 8]), capacity: 64 };
  const [three, two] = [gpu.zeros([3], "u32"), gpu.zeros([2], "u32")];
  const q = gpu.zeros([2, 16]);
  await assertThrows(
    () => cacheAttention(gpu, gpu.zeros([3, 16]), cache, three, shape, { longest: 1 }),
    "3 rows",
    "sequences of 64 rows",
  );
  await assertThrows(
    () => cacheAttention(gpu, q, cache, two, shape, { longest: 65 }),
    "65 keys",
    "capacity of 64",
  );
  const given = { q, k: q, v: q };
  await assertThrows(() => appendToCache(gpu, given, cache, two, shape, null), "keys [2,16]", "[128,8]");
  const rows = { q, k: gpu.zeros([2, 8]), v: gpu.zeros([2, 8]) };
  const table = { cos: gpu.zeros([64, 6]), sin: gpu.zeros([64, 6]) };
  await assertThrows(() => appendToCache(gpu, rows, cache, two, shape, table), "12 of a head of 8");
  const narrow = { ...rows, q: gpu.zeros([2, 8]) };
  await assertThrows(() => appendToCache(gpu, narrow, cache, two, shape, null), "queries [2,8]");
  const six = { q: gpu.zeros([2, 12]), k: gpu.zeros([2, 6]), v: gpu.zeros([2, 6]) };
  const caches = { k: gpu.zeros([128, 6]), v: gpu.zeros([128, 6]), capacity: 64 };
  await assertThrows(
    () => appendToCache(gpu, six, caches, two, { ...shape, headDim: 6 }, null),
    "2 and 1 heads of 6",
  );
  const half = { ...rows, v: gpu.zeros([2, 8], "f16") };
  await assertThrows(() => appendToCache(gpu, half, cache, two, shape, null), "values [2,8] f16");
  const q8 = { k: gpu.zeros([128, 3], "u32"), v: gpu.zeros([128, 3], "u32"), capacity: 64 };
  await assertThrows(() => appendToCache(gpu, given, q8, two, shape, null), "keys [2,16]", "[128,3]");
  await assertThrows(
    () => cacheAttention(gpu, q, q8, two, { ...shape, kvHeads: 2 }, { longest: 1 }),
    "[128,3]",
  );
  await assertThrows(() => quantiseRows(gpu, q, gpu.zeros([2, 3], "u32")), "[2,16]", "[2,3]");
  await assertThrows(() => quantiseRows(gpu, q, gpu.zeros([2, 5])), "[2,5] f32");
  await assertThrows(() => dequantiseRows(gpu, q8.k, { kvHeads: 2, headDim: 8 }, "f32"), "2 heads of 8");
});
