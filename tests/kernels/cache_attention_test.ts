import { attention } from "../../kernels/attention/attention.ts";
import { makeAttentionMap } from "../../kernels/attention/map.ts";
import {
  appendToCache,
  cacheAttention,
  type LayerCache,
} from "../../kernels/cache_attention/cache_attention.ts";
import { cacheAttentionReference } from "../../kernels/cache_attention/reference.ts";
import { Gpu, type GpuOptions, type Sharing } from "../../kernels/gpu.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { assertRounded, inFormat } from "../support/numeric.ts";
import { normal } from "../support/random.ts";

interface Case {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly capacity: number;
  /** Positions of the new rows of each sequence. */
  readonly positions: readonly (readonly number[])[];
  readonly format: Format;
  readonly cacheFormat?: Format;
  readonly window?: number;
  readonly scale?: number;
  readonly cap?: number;
}

/** One to three sequences of different lengths, one or several new rows, heads alone and shared, sizes off any tile. */
const CASES: Case[] = [
  { heads: 4, kvHeads: 4, headDim: 16, capacity: 64, positions: [[0]], format: "f32" },
  { heads: 4, kvHeads: 2, headDim: 32, capacity: 128, positions: [[77]], format: "f32" },
  { heads: 8, kvHeads: 1, headDim: 20, capacity: 320, positions: [[300], [5]], format: "bf16" },
  { heads: 6, kvHeads: 2, headDim: 64, capacity: 192, positions: [[130], [191], [64]], format: "f16" },
  { heads: 2, kvHeads: 1, headDim: 128, capacity: 192, positions: [[150, 151, 152]], format: "f32" },
  { heads: 10, kvHeads: 1, headDim: 8, capacity: 64, positions: [[3, 4], [62, 63]], format: "f32" },
  { heads: 4, kvHeads: 2, headDim: 32, capacity: 256, positions: [[200], [7]], format: "f32", window: 50 },
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
];

async function check(gpu: Gpu, c: Case, seed: number): Promise<void> {
  const { heads, kvHeads, headDim, capacity, format, cacheFormat = format, window, scale, cap } = c;
  const cacheRows = c.positions.length * capacity;
  const rows = c.positions.flat().length;
  const q = inFormat(gpu, [rows, heads * headDim], normal(seed, rows * heads * headDim), format);
  const width = kvHeads * headDim;
  // What no query may see is huge: a key too many shows.
  const limited = (values: Float32Array) =>
    values.map((value, i) => {
      const row = Math.floor(i / width);
      return row % capacity > c.positions[Math.floor(row / capacity)]!.at(-1)! ? 1e4 : value;
    });
  const k = inFormat(gpu, [cacheRows, width], limited(normal(seed + 1, cacheRows * width)), cacheFormat);
  const v = inFormat(gpu, [cacheRows, width], limited(normal(seed + 2, cacheRows * width)), cacheFormat);
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
  "subgroup sharing, bindings of 32 KiB": { sharing: "subgroup", maxBindingBytes: 32 * 1024 },
  "workgroup sharing, bindings of 32 KiB": { sharing: "workgroup", maxBindingBytes: 32 * 1024 },
};

for (const [way, options] of Object.entries(WAYS)) {
  Deno.test(`New rows see the keys up to their own, ${way}`, async () => {
    using gpu = await Gpu.open({ poison: true, ...options });
    for (const [i, c] of CASES.entries()) {
      // 64 rows of a cache are the least that a binding holds.
      const rowBytes = c.kvHeads * c.headDim * 4;
      if (options.maxBindingBytes && 64 * rowBytes > options.maxBindingBytes) continue;
      await check(gpu, c, 10 * i);
    }
  });
}

for (const sharing of ["subgroup", "workgroup"] satisfies Sharing[]) {
  Deno.test(`Long contexts are split and put together again, ${sharing} sharing`, async () => {
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

  Deno.test(`Scores far apart do not overflow, ${sharing} sharing`, async () => {
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

for (const maxBindingBytes of [2 ** 30, 64 * 32]) {
  Deno.test(`New keys and values land at their positions, bindings of ${maxBindingBytes} bytes`, async () => {
    using gpu = await Gpu.open({ poison: true, maxBindingBytes });
    const [width, capacity] = [8, 128];
    const positions = [70, 71, 127, 128];
    const [k, v] = [normal(1, 4 * width), normal(2, 4 * width)];
    const cache: LayerCache = {
      k: gpu.zeros([2 * capacity, width]),
      v: gpu.zeros([2 * capacity, width]),
      capacity,
    };
    const tensors = [gpu.tensor([4, width], k), gpu.tensor([4, width], v)] as const;
    appendToCache(gpu, ...tensors, cache, gpu.tensor([4], Uint32Array.from(positions)));
    for (const [name, values, tensor] of [["k", k, cache.k], ["v", v, cache.v]] as const) {
      const expected = new Float32Array(2 * capacity * width);
      // The last row is past the capacity and left out.
      [70, 71, capacity + 127].forEach((at, row) =>
        expected.set(values.subarray(row * width, (row + 1) * width), at * width)
      );
      assertEquals([...await gpu.read(tensor)], [...expected], name);
    }
  });
}

Deno.test("Attention of the last rows alone is that of all rows, cut", async () => {
  const [rows, width, shape] = [150, 32, { heads: 4, kvHeads: 2, headDim: 8 }];
  for (const sharing of ["subgroup", "workgroup"] as const) {
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
  await assertThrows(() => appendToCache(gpu, q, q, cache, two), "keys [2,16]", "[128,8]");
});
