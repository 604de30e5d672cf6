import { Gpu } from "../../kernels/gpu.ts";
import { adamW } from "../../kernels/optimizer/adamw.ts";
import { globalNorm, STATUS } from "../../kernels/optimizer/global_norm.ts";
import { adamW64, globalNorm64 } from "../../kernels/optimizer/reference.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { normal } from "../support/random.ts";

const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 4096 });

const NORM = { rtol: 1e-6, atol: 0 };

/** Gradient shapes below, at and past the 8192 elements of one span, and one of many spans. */
const SETS = [
  [[4]],
  [[8192]],
  [[8196], [3, 4]],
  [[64, 8], [4], [300, 8], [4096]],
  [[8, 4096], [4096, 8], [1000, 500]],
] as const;

for (const [seed, shapes] of SETS.entries()) {
  Deno.test(`globalNorm() matches float64 for gradients [${shapes.join("], [")}]`, async () => {
    const gpu = whole;
    const values = shapes.map((shape, i) =>
      normal(10 * seed + i, shape.reduce((a: number, b) => a * b, 1), 0.1)
    );
    const grads = shapes.map((shape, i) => gpu.tensor(shape, values[i]!));
    const norm = globalNorm64(values);
    const live = gpu.liveBytes;
    for (
      const [maxNorm, inverseScale] of [[0, 1], [norm / 3, 1], [10 * norm, 1], [norm / 8, 1 / 16]] as const
    ) {
      const status = gpu.tensor([8], Float32Array.of(7, 7, 7, 7, 7, 7, 7, 7));
      globalNorm(gpu, grads, status, { maxNorm, inverseScale });
      const scaled = norm * inverseScale;
      const clip = maxNorm === 0 ? 1 : Math.min(1, maxNorm / (scaled + 1e-6));
      const expected = [7, scaled, 1, inverseScale * clip, 7, 7, 7, 7];
      assertClose(`status for ${maxNorm}`, await gpu.read(status), expected, NORM);
      status.free();
    }
    assertEquals(gpu.liveBytes, live, "bytes in use");
  });
}

Deno.test("globalNorm() works on gradients that span buffers, on none, and the same every time", async () => {
  const values = [normal(1, 300 * 8), normal(2, 64 * 4)];
  const run = async (gpu: Gpu) => {
    const grads = [gpu.tensor([300, 8], values[0]!), gpu.tensor([64, 4], values[1]!)];
    const status = gpu.zeros([8]);
    globalNorm(gpu, grads, status, { maxNorm: 1, inverseScale: 1 });
    return { segments: grads[0]!.segments.length, status: [...await gpu.read(status)] };
  };
  const [one, again, parts] = [await run(whole), await run(whole), await run(split)];
  assertEquals([one.segments, parts.segments], [1, 3]);
  assertEquals(again.status, one.status, "second run");
  assertClose("norm", [parts.status[1]!], [globalNorm64(values)], NORM);
  const status = whole.zeros([8]);
  globalNorm(whole, [], status, { maxNorm: 1, inverseScale: 1 });
  assertEquals([...await whole.read(status)], [0, 0, 1, 1, 0, 0, 0, 0], "no gradients");
});

Deno.test("A gradient that is not finite sets the flag, and AdamW then changes no byte", async () => {
  const gpu = whole;
  for (const bad of [NaN, Infinity, -Infinity]) {
    const grads = normal(1, 9000);
    grads[8999] = bad;
    const state = {
      param: gpu.tensor([9000], normal(2, 9000)),
      grad: gpu.tensor([9000], grads),
      m: gpu.tensor([9000], normal(3, 9000)),
      v: gpu.tensor([9000], normal(4, 9000).map(Math.abs)),
    };
    const kept = [state.param, state.m, state.v];
    const before = await gpu.readBytes(kept);
    const status = gpu.zeros([8]);
    globalNorm(gpu, [gpu.tensor([8], normal(5, 8)), state.grad], status, { maxNorm: 1, inverseScale: 1 });
    adamW(gpu, state, status, { ...OPTIONS, step: 3 });
    const [, , isFinite, factor] = await gpu.read(status);
    assertEquals([isFinite, factor], [0, 0], String(bad));
    const after = await gpu.readBytes(kept);
    assert(
      after.every((bytes, i) => bytes.every((byte, at) => byte === before[i]![at])),
      `changed by ${bad}`,
    );
  }
});

const OPTIONS = { learningRate: 1e-2, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1 };

for (const [seed, shape] of ([[4], [3, 20], [64, 4], [65, 4], [300, 8], [2, 4096]] as const).entries()) {
  Deno.test(`adamW() follows torch.optim.AdamW in float64 over steps for [${shape}]`, async () => {
    const gpu = shape[0] === 300 ? split : whole;
    const size = shape.reduce((a: number, b) => a * b, 1);
    const make = (values: Float32Array) => ({
      tensor: gpu.tensor(shape, values),
      values: Float64Array.from(values),
    });
    const [param, m, v] = [
      make(normal(seed, size)),
      make(new Float32Array(size)),
      make(new Float32Array(size)),
    ];
    const factor = 0.25;
    const status = gpu.tensor([STATUS.length], Float32Array.of(0, 4, 1, factor, 0, 0, 0, 0));
    for (let step = 1; step <= 4; step++) {
      const options = { ...OPTIONS, weightDecay: seed % 3 ? 0.1 : 0, step };
      const grad = make(normal(100 * seed + step, size));
      adamW(gpu, { param: param.tensor, grad: grad.tensor, m: m.tensor, v: v.tensor }, status, options);
      const clipped = grad.values.map((value) => value * factor);
      adamW64({ param: param.values, grad: clipped, m: m.values, v: v.values }, options);
    }
    assertClose("param", await gpu.read(param.tensor), param.values, { rtol: 1e-6, atol: 1e-7 });
    assertClose("m", await gpu.read(m.tensor), m.values, { rtol: 1e-6, atol: 1e-7 });
    assertClose("v", await gpu.read(v.tensor), v.values, { rtol: 2e-6, atol: 1e-12 });
  });
}

Deno.test("globalNorm() and adamW() refuse what does not fit", async () => {
  const gpu = whole;
  const status = gpu.zeros([8]);
  const x = gpu.zeros([2, 4]);
  const clip = { maxNorm: 1, inverseScale: 1 };
  await assertThrows(() => globalNorm(gpu, [gpu.zeros([2, 4], "bf16")], status, clip), "bf16, not f32");
  await assertThrows(() => globalNorm(gpu, [gpu.zeros([3])], status, clip), "not a multiple of 4");
  await assertThrows(() => globalNorm(gpu, [x], gpu.zeros([4]), clip), "must hold 8 f32");
  const state = { param: x, grad: x, m: gpu.zeros([2, 4]), v: gpu.zeros([4, 4]) };
  await assertThrows(() => adamW(gpu, state, status, { ...OPTIONS, step: 1 }), "differ in shape");
  await assertThrows(() => adamW(gpu, state, status, { ...OPTIONS, step: 0 }), "steps count from 1");
});
