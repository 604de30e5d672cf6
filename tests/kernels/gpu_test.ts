import { Gpu } from "../../kernels/gpu.ts";
import type { Kernel } from "../../kernels/wgsl.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { normal } from "../support/random.ts";

const DOUBLE: Kernel = {
  name: "double",
  wgsl: `
struct Params { quads: u32, factor: f32 }
@group(0) @binding(0) var<storage, read> x: array<X>;
@group(0) @binding(1) var<storage, read_write> y: array<X>;
@group(0) @binding(2) var<uniform> p: Params;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= p.quads) { return; }
  y[id.x] = store_X(load_X(x[id.x]) * p.factor);
}`,
};

function double(gpu: Gpu, x: ReturnType<Gpu["empty"]>, factor: number) {
  const y = gpu.empty(x.shape, x.dtype, "y");
  const quads = x.size / 4;
  const grid = [Math.ceil(quads / 64)] as const;
  gpu.run(DOUBLE, { x, y }, { grid, uniforms: { quads, factor }, formats: { X: x.format } });
  return y;
}

Deno.test("run() sees its uniforms and the writes of earlier runs", async () => {
  using gpu = await Gpu.open({ poison: true });
  const values = normal(1, 400);
  let x = gpu.tensor([100, 4], values);
  for (const factor of [2, 3, -1]) {
    const y = double(gpu, x, factor);
    x.free();
    x = y;
  }
  assertEquals([...await gpu.read(x)], [...values.map((v) => Math.fround(Math.fround(2 * v) * 3) * -1)]);
  // More runs than one submit has room for, each with a factor of its own.
  const ys = Array.from(
    { length: 4200 },
    (_, i) => double(gpu, gpu.tensor([1, 4], Float32Array.of(1, 2, 3, 4)), i),
  );
  for (const i of [0, 1, 4095, 4096, 4199]) {
    assertEquals([...await gpu.read(ys[i]!)], [i, 2 * i, 3 * i, 4 * i], `run ${i}`);
  }
});

Deno.test("A new tensor of a poisoned device is NaN in every float format", async () => {
  using gpu = await Gpu.open({ poison: true });
  for (const format of ["f32", "bf16", "f16"] as const) {
    assert((await gpu.read(gpu.empty([3, 4], format))).every(Number.isNaN), format);
  }
});

Deno.test("write() changes what later runs see, not what earlier ones saw", async () => {
  using gpu = await Gpu.open();
  const x = gpu.tensor([1, 4], Float32Array.of(1, 2, 3, 4));
  const first = double(gpu, x, 2);
  gpu.write(x, Float32Array.of(5, 6, 7, 8));
  const second = double(gpu, x, 2);
  assertEquals([...await gpu.read(first)], [2, 4, 6, 8]);
  assertEquals([...await gpu.read(second)], [10, 12, 14, 16]);
});

Deno.test("run() sends the work on before it becomes too much for one submit", async () => {
  using gpu = await Gpu.open({ mostWork: 10 });
  const x = gpu.tensor([1, 4], Float32Array.of(1, 2, 3, 4));
  const submit = gpu.device.queue.submit.bind(gpu.device.queue);
  let submits = 0;
  gpu.device.queue.submit = (buffers) => {
    submits++;
    submit(buffers);
  };
  const after = [4, 6, 1, 30, undefined, 9, 0].map((work) => {
    const y = gpu.empty([1, 4]);
    const launch = { grid: [1] as const, uniforms: { quads: 1, factor: 2 }, formats: { X: "f32" as const } };
    gpu.run(DOUBLE, { x, y }, work === undefined ? launch : { ...launch, work });
    return submits;
  });
  assertEquals(after, [0, 0, 1, 2, 3, 3, 3]);
});

Deno.test("16-bit formats round to nearest even and keep infinities and NaN", async () => {
  using gpu = await Gpu.open();
  const values = Float32Array.of(1, 1 + 2 ** -8, 1 + 3 * 2 ** -8, -65504, 65520, 1e-7, -Infinity, NaN);
  for (
    const [format, expected] of [
      ["bf16", [1, 1, 1 + 2 ** -6, -65536, 65536, 1.0011717677116394e-7, -Infinity, NaN]],
      ["f16", [1, 1 + 2 ** -8, 1 + 3 * 2 ** -8, -65504, Infinity, 2 ** -23, -Infinity, NaN]],
    ] as const
  ) {
    const x = gpu.tensor([2, 4], values);
    const y = gpu.empty([2, 4], format);
    const STORE: Kernel = {
      name: `store ${format}`,
      wgsl: `
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<Y>;
@compute @workgroup_size(2) fn main(@builtin(global_invocation_id) id: vec3u) { y[id.x] = store_Y(x[id.x]); }`,
    };
    gpu.run(STORE, { x, y }, { grid: [1], formats: { Y: format } });
    assertEquals(
      [...await gpu.read(y)].map(String),
      [...expected].map((v) => String(Math.fround(v))),
      format,
    );
  }
});

Deno.test("A kernel that does not compile stops the next read by name", async () => {
  using gpu = await Gpu.open();
  const x = gpu.tensor([1, 4], normal(3, 4));
  gpu.run({ ...DOUBLE, name: "broken", wgsl: DOUBLE.wgsl.replace("p.factor", "p.missing") }, { x, y: x }, {
    grid: [1],
    uniforms: { quads: 1, factor: 1 },
    formats: { X: "f32" },
  });
  await assertThrows(() => gpu.read(x), `Kernel "broken" does not compile`);
});

Deno.test("Kernels compiled ahead are those that work then uses, and one that does not compile is told", async () => {
  using gpu = await Gpu.open();
  const form = { kernel: DOUBLE, constants: undefined, formats: { X: "f32" } } as const;
  await gpu.compile([form, { ...form, formats: { X: "bf16" } }, form]);
  assertEquals(gpu.pipelineCount, 2);
  const y = double(gpu, gpu.tensor([1, 4], Float32Array.of(1, 2, 3, 4)), 3);
  assertEquals([...await gpu.read(y)], [3, 6, 9, 12]);
  await gpu.compile([form]);
  assertEquals(gpu.pipelineCount, 2, "none is made twice");
  const kernel = { ...DOUBLE, name: "broken", wgsl: DOUBLE.wgsl.replace("p.factor", "p.missing") };
  await gpu.compile([{ ...form, kernel }]);
  await assertThrows(() => gpu.read(y), `Kernel "broken" does not compile`);
});

Deno.test("Kernels of one name and other pieces are not taken for each other", async () => {
  using gpu = await Gpu.open();
  const x = gpu.tensor([1, 4], Float32Array.of(1, 2, 3, 4));
  const wgsl = DOUBLE.wgsl.replace("p.factor", "factor_of(p.factor)");
  const products = ["factor", "factor + 10.0"].map((factor) => {
    const libraries = [`fn factor_of(factor: f32) -> f32 { return ${factor}; }`];
    const y = gpu.empty(x.shape);
    const launch = { grid: [1], uniforms: { quads: 1, factor: 2 }, formats: { X: "f32" } } as const;
    gpu.run({ ...DOUBLE, wgsl, libraries }, { x, y }, launch);
    return y;
  });
  assertEquals([...await gpu.read(products[0]!)], [2, 4, 6, 8]);
  assertEquals([...await gpu.read(products[1]!)], [12, 24, 36, 48]);
});

Deno.test("Tensors over the binding limit span buffers and read back whole", async () => {
  using gpu = await Gpu.open({ maxBindingBytes: 4096 });
  const values = normal(4, 200 * 8);
  const x = gpu.tensor([200, 8], values);
  assertEquals(x.segments.map(({ rows }) => rows), [128, 72]);
  assertEquals([...await gpu.read(x)], [...values]);
  const copy = gpu.zeros([200, 8]);
  gpu.copy(x, copy);
  assertEquals([...await gpu.read(copy)], [...values]);
  assertEquals([...await gpu.read(x.slice(64, 192))], [...values.slice(64 * 8, 192 * 8)]);
  await assertThrows(() => x.bound, "spans 2 bindings");
});

Deno.test("Tensors over the 64 MiB of one upload are written whole", async () => {
  using gpu = await Gpu.open();
  const values = new Float32Array(17 * 2 ** 20).map((_, i) => i >> 10);
  const x = gpu.tensor([17 * 1024, 1024], values);
  for (const row of [0, 16 * 1024 - 64, 16 * 1024, 17 * 1024 - 64]) {
    const read = await gpu.read(x.slice(row, row + 64));
    assert(read.every((value, i) => value === row + (i >> 10)), `rows from ${row}`);
  }
});

Deno.test("A lost device and device errors are thrown by the next read", async () => {
  const gpu = await Gpu.open();
  const x = gpu.tensor([1, 4], normal(5, 4));
  gpu.device.createBuffer({ size: 2 ** 40, usage: GPUBufferUsage.STORAGE });
  await assertThrows(() => gpu.read(x), "The GPU reported an error");
  gpu.close();
  const lost = await Gpu.open();
  const y = lost.tensor([1, 4], normal(5, 4));
  lost.device.destroy();
  await assertThrows(() => lost.read(y), "The GPU device was lost");
  lost.close();
});

Deno.test("timings() reports each dispatch when profiling", async () => {
  using gpu = await Gpu.open({ profile: true });
  const y = double(gpu, gpu.tensor([1024, 256], normal(6, 1024 * 256)), 2);
  await gpu.read(y);
  const timings = await gpu.timings();
  assertEquals(timings.map(({ kernel, bytes }) => ({ kernel, bytes })), [{
    kernel: "double",
    bytes: 2 ** 21,
  }]);
  assert(timings[0]!.microseconds > 0, "a dispatch takes time");
  const x = gpu.tensor([1, 4], normal(6, 4));
  for (let i = 0; i < 2100; i++) double(gpu, x, 2).free();
  await gpu.settle();
  const more = await gpu.timings();
  assertEquals(more.length, 2100, "more dispatches than one set of queries times");
  assert(more.every(({ microseconds }) => microseconds >= 0), "none ends before it begins");
});

Deno.test("devices side by side have each their own tuning and trace", async () => {
  const told: string[] = [];
  let kernels = 0;
  using traced = await Gpu.open({
    onTiming: ({ kernel, microseconds }) => told.push(`${kernel} ${microseconds > 0}`),
    onCompile: (count) => kernels = count,
  });
  using tuned = await Gpu.open({ tuning: { "some work": "a variant" } });
  assertEquals([traced.tuning, tuned.tuning], [{}, { "some work": "a variant" }]);
  const values = Float32Array.of(1, 2, 3, 4);
  const products = [traced, tuned].map((gpu) => double(gpu, gpu.tensor([1, 4], values), 2));
  assertEquals(told, [], "before a read");
  assertEquals([...await tuned.read(products[1]!)], [2, 4, 6, 8]);
  assertEquals(told, [], "the other device");
  assertEquals([...await traced.read(products[0]!)], [2, 4, 6, 8]);
  assertEquals(told, ["double true"]);
  assertEquals([kernels, await traced.timings()], [1, []]);
});

Deno.test("flush() sends what is recorded, and what is written before it is not lost", async () => {
  using gpu = await Gpu.open();
  const x = gpu.tensor([1, 4], Float32Array.of(1, 2, 3, 4));
  const y = double(gpu, x, 2);
  const submit = gpu.device.queue.submit.bind(gpu.device.queue);
  let sent = 0;
  gpu.device.queue.submit = (buffers) => {
    sent += [...buffers].length;
    submit(buffers);
  };
  gpu.flush();
  assertEquals(sent, 1, "command buffers sent");
  gpu.write(x, Float32Array.of(5, 6, 7, 8));
  gpu.flush();
  assertEquals([...await gpu.read(y)], [2, 4, 6, 8]);
  assertEquals([...await gpu.read(x)], [5, 6, 7, 8]);
});

Deno.test("run() refuses wrong uniforms, wrong bindings and oversized grids", async () => {
  using gpu = await Gpu.open();
  const x = gpu.tensor([1, 4], normal(7, 4));
  const y = gpu.empty([1, 4]);
  const uniforms = { quads: 1, factor: 1 };
  const formats = { X: "f32" as const };
  await assertThrows(() => gpu.run(DOUBLE, { x, y }, { grid: [1], formats }), "takes uniforms quads, factor");
  await assertThrows(
    () => gpu.run(DOUBLE, { x, y }, { grid: [1], formats, uniforms: { quads: -1, factor: 1 } }),
    "must fit in u32",
  );
  await assertThrows(() => gpu.run(DOUBLE, { x }, { grid: [1], formats, uniforms }), "binds x, y, but got x");
  await assertThrows(
    () => gpu.run(DOUBLE, { x, out: y }, { grid: [1], formats, uniforms }),
    "binds x, y, but got x, out",
  );
  gpu.run(DOUBLE, { y, x }, { grid: [1], formats, uniforms });
  await assertThrows(
    () => gpu.run(DOUBLE, { x, y, z: x }, { grid: [1], formats, uniforms }),
    "binds x, y, but got x, y, z",
  );
  await assertThrows(() => gpu.run(DOUBLE, { x, y }, { grid: [70000], formats, uniforms }), "at most 65535");
  await assertThrows(
    () => gpu.run(DOUBLE, { x, y }, { grid: [1], formats, uniforms, constants: { TYPO: 1 } }),
    `no constant "TYPO"`,
  );
});

Deno.test("startRead() keeps the values of its time, and sends nothing that is recorded after it", async () => {
  using gpu = await Gpu.open();
  const { queue } = gpu.device;
  let submits = 0;
  const submit = queue.submit.bind(queue);
  queue.submit = (commands) => {
    submits++;
    submit(commands);
  };
  const first = gpu.tensor([4], new Float32Array([1, 2, 3, 4]), { label: "first" });
  const second = gpu.tensor([4], new Float32Array([5, 6, 7, 8]), { label: "second" });
  const reading = gpu.startRead([first]);
  gpu.submit();
  const sent = submits;
  gpu.copy(second, first);
  const bytes = reading.bytes();
  assertEquals(submits, sent, "submits while reading");
  assertEquals([...new Float32Array((await bytes)[0]!.buffer)], [1, 2, 3, 4]);
  const dropped = gpu.startRead([first]);
  dropped.drop();
  // Nothing has sent this one yet: the read does.
  const [later] = await gpu.startRead([first, second]).bytes();
  assertEquals([...new Float32Array(later!.buffer)], [5, 6, 7, 8]);
});
