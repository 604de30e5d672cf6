import { Gpu } from "../../kernels/gpu.ts";
import { adamW } from "../../kernels/optimizer/adamw.ts";
import {
  adamW8bit,
  adamW8bitMaps,
  asRows,
  codesShape,
  STATE_BLOCK,
} from "../../kernels/optimizer/adamw_8bit.ts";
import { globalNorm, STATUS } from "../../kernels/optimizer/global_norm.ts";
import {
  adamW8bitReference,
  adamWReference,
  globalNormReference,
} from "../../kernels/optimizer/reference.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { normal } from "../support/random.ts";

const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 4096 });
// Work of few groups is laid out along y, as that of many goes on there: a kernel that numbers its threads by x alone shows.
const run = split.run.bind(split);
split.run = (kernel, tensors, { grid: [x, y = 1], ...launch }) =>
  run(kernel, tensors, { ...launch, grid: [y, x] });

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
    const norm = globalNormReference(values);
    const live = gpu.memory.liveBytes;
    for (
      const [maxNorm, inverseScale] of [[0, 1], [norm / 3, 1], [10 * norm, 1], [norm / 8, 1 / 16]] as const
    ) {
      const status = gpu.tensor([STATUS.length], Float32Array.of(7, 7, 7));
      globalNorm(gpu, grads, status, { maxNorm, inverseScale });
      const scaled = norm * inverseScale;
      const clip = maxNorm === 0 ? 1 : Math.min(1, maxNorm / (scaled + 1e-6));
      const expected = [scaled, 1, inverseScale * clip];
      assertClose(`status for ${maxNorm}`, await gpu.read(status), expected, NORM);
      status.free();
    }
    assertEquals(gpu.memory.liveBytes, live, "bytes in use");
  });
}

Deno.test("globalNorm() works on gradients that span buffers, on none, and the same every time", async () => {
  const values = [normal(1, 300 * 8), normal(2, 64 * 4)];
  const run = async (gpu: Gpu) => {
    const grads = [gpu.tensor([300, 8], values[0]!), gpu.tensor([64, 4], values[1]!)];
    const status = gpu.zeros([STATUS.length]);
    globalNorm(gpu, grads, status, { maxNorm: 1, inverseScale: 1 });
    return { segments: grads[0]!.segments.length, status: [...await gpu.read(status)] };
  };
  const [one, again, parts] = [await run(whole), await run(whole), await run(split)];
  assertEquals([one.segments, parts.segments], [1, 3]);
  assertEquals(again.status, one.status, "second run");
  assertClose("norm", [parts.status[STATUS.gradNorm]!], [globalNormReference(values)], NORM);
  const status = whole.zeros([STATUS.length]);
  globalNorm(whole, [], status, { maxNorm: 1, inverseScale: 1 });
  assertEquals([...await whole.read(status)], [0, 1, 1], "no gradients");
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
    const status = gpu.zeros([STATUS.length]);
    globalNorm(gpu, [gpu.tensor([8], normal(5, 8)), state.grad], status, { maxNorm: 1, inverseScale: 1 });
    adamW(gpu, [state], status, { ...OPTIONS, step: 3 });
    const [, isFinite, factor] = await gpu.read(status);
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
    const status = gpu.tensor([STATUS.length], Float32Array.of(4, 1, factor));
    for (let step = 1; step <= 4; step++) {
      const options = { ...OPTIONS, weightDecay: seed % 3 ? 0.1 : 0, step };
      const grad = make(normal(100 * seed + step, size));
      adamW(gpu, [{ param: param.tensor, grad: grad.tensor, m: m.tensor, v: v.tensor }], status, options);
      const clipped = grad.values.map((value) => value * factor);
      adamWReference({ param: param.values, grad: clipped, m: m.values, v: v.values }, options);
    }
    assertClose("param", await gpu.read(param.tensor), param.values, { rtol: 1e-6, atol: 1e-7 });
    assertClose("m", await gpu.read(m.tensor), m.values, { rtol: 1e-6, atol: 1e-7 });
    assertClose("v", await gpu.read(v.tensor), v.values, { rtol: 2e-6, atol: 1e-12 });
  });
}

Deno.test("Tensors side by side are normed, updated and cleared in one dispatch, with the values of each alone", async () => {
  const kernels: string[] = [];
  using gpu = await Gpu.open({ poison: true, onDispatch: ({ kernel }) => kernels.push(kernel) });
  // Not all end where a binding may begin; the third is none of the optimiser's.
  const shapes = [[3, 4], [64], [8], [5, 68], [1, 4]];
  const wanted = shapes.map((shape, i) => ({ shape, label: `tensor ${i}` }));
  const make = (seed: number, isTogether: boolean) => {
    const tensors = isTogether ? gpu.zerosTogether(wanted) : shapes.map((shape) => gpu.zeros(shape));
    tensors.forEach((tensor, i) => gpu.write(tensor, normal(seed + i, tensor.size).map(Math.abs)));
    return tensors;
  };
  const run = async (isTogether: boolean) => {
    const [params, grads, ms, vs] = [10, 20, 30, 40].map((seed) => make(seed, isTogether)) as [
      Tensor[],
      Tensor[],
      Tensor[],
      Tensor[],
    ];
    const status = gpu.zeros([STATUS.length]);
    const chosen = [0, 1, 3, 4];
    kernels.length = 0;
    globalNorm(gpu, chosen.map((i) => grads[i]!), status, { maxNorm: 1, inverseScale: 1 });
    const states = chosen.map((i) => ({ param: params[i]!, grad: grads[i]!, m: ms[i]!, v: vs[i]! }));
    adamW(gpu, states, status, { ...OPTIONS, step: 2 });
    const counts = ["sum_of_squares", "adamw"].map((name) =>
      kernels.filter((kernel) => kernel === name).length
    );
    const values = await Promise.all([...params, ...ms, ...vs, status].map((tensor) => gpu.read(tensor)));
    gpu.clearAll(chosen.map((i) => grads[i]!));
    const cleared = await Promise.all(grads.map((grad) => gpu.read(grad)));
    assertEquals(cleared.map((grad) => grad.every((value) => value === 0)), [true, true, false, true, true]);
    return { counts, values };
  };
  const [together, apart] = [await run(true), await run(false)];
  assertEquals([together.counts, apart.counts], [[2, 2], [4, 4]]);
  together.values.forEach((value, i) =>
    assertClose(`tensor ${i}`, value, apart.values[i]!, { rtol: 1e-6, atol: 0 })
  );
});

Deno.test("Tensors made together share buffers as far as bindings allow, which go when the last is freed", async () => {
  using gpu = await Gpu.open({ maxBindingBytes: 2 ** 12 });
  const before = gpu.memory.liveBytes;
  const tensors = gpu.zerosTogether([[16], [500], [256, 16], [300], [3, 100], [700], [4]].map((shape, i) => ({
    shape,
    label: `tensor ${i}`,
  })));
  const buffers = tensors.map(({ segments }) => segments.map(({ buffer }) => buffer.id));
  const first = buffers[0]![0]!;
  assertEquals(buffers.slice(0, 2), [[first], [first]], "the first two");
  assertEquals(
    [buffers[2]!.length, buffers[3]![0] === buffers[4]![0]],
    [4, true],
    "one of four bindings, and two",
  );
  assert(buffers[5]![0] !== buffers[4]![0] && buffers[5]![0] === buffers[6]![0], "the last two");
  for (const { segments } of tensors) assert(segments.every(({ offset }) => offset % 256 === 0), "offsets");
  tensors[0]!.free();
  const held = gpu.memory.liveBytes;
  tensors[1]!.free();
  assertEquals(held - gpu.memory.liveBytes, 256 + 2000);
  tensors.slice(2).forEach((tensor) => tensor.free());
  assertEquals(gpu.memory.liveBytes, before);
});

Deno.test("globalNorm() and adamW() refuse what does not fit", async () => {
  const gpu = whole;
  const status = gpu.zeros([STATUS.length]);
  const x = gpu.zeros([2, 4]);
  const clip = { maxNorm: 1, inverseScale: 1 };
  await assertThrows(() => globalNorm(gpu, [gpu.zeros([2, 4], "bf16")], status, clip), "bf16, not f32");
  await assertThrows(() => globalNorm(gpu, [gpu.zeros([3])], status, clip), "not a multiple of 4");
  await assertThrows(() => globalNorm(gpu, [x], gpu.zeros([4]), clip), "must hold 3 f32");
  const state = { param: x, grad: x, m: gpu.zeros([2, 4]), v: gpu.zeros([4, 4]) };
  await assertThrows(() => adamW(gpu, [state], status, { ...OPTIONS, step: 1 }), "differ in shape");
  await assertThrows(() => adamW(gpu, [state], status, { ...OPTIONS, step: 0 }), "steps count from 1");
});

/** States of 8 bits on the device and in float64, from nothing. */
function make8bit(gpu: Gpu, shape: readonly number[], seed: number) {
  const size = shape.reduce((a, b) => a * b, 1);
  const blocks = Math.ceil(size / STATE_BLOCK);
  const values = normal(seed, size);
  return {
    device: {
      param: gpu.tensor(shape, values),
      mCodes: gpu.zeros(codesShape(shape), "u32"),
      vCodes: gpu.zeros(codesShape(shape), "u32"),
      absmax: gpu.zeros([blocks, 2]),
    },
    host: {
      param: Float64Array.from(values),
      mCodes: new Uint8Array(size),
      vCodes: new Uint8Array(size),
      absmax: new Float32Array(2 * blocks),
    },
  };
}

for (
  const [seed, shape] of ([[4], [260], [3, 20], [64, 4], [16, 1024], [300, 64], [4096]] as const).entries()
) {
  Deno.test(`adamW8bit() follows bitsandbytes' definition over a dozen steps, code by code, for [${shape}]`, async () => {
    const gpu = shape[0] === 300 ? await Gpu.open({ poison: true, maxBindingBytes: 32768 }) : whole;
    if (gpu !== whole) {
      const run = gpu.run.bind(gpu);
      gpu.run = (kernel, tensors, { grid: [x, y = 1], ...launch }) =>
        run(kernel, tensors, { ...launch, grid: [y, x] });
    }
    const { device, host } = make8bit(gpu, shape, seed);
    const maps = adamW8bitMaps(gpu);
    const factor = 0.25;
    const status = gpu.tensor([STATUS.length], Float32Array.of(4, 1, factor));
    let [compared, apart] = [0, 0];
    for (let step = 1; step <= 12; step++) {
      // A block's smallest squares round to nothing: a larger epsilon keeps f32's error in their means small.
      const options = { ...OPTIONS, epsilon: 1e-4, weightDecay: seed % 3 ? 0.1 : 0, step };
      // Gradients of all sizes, and some of exactly nothing.
      const scales = normal(7 * seed + step, host.param.length).map((value) =>
        value > 1 ? 0 : 10 ** (3 * value)
      );
      const values = normal(100 * seed + step, host.param.length).map((value, i) => value * scales[i]!);
      const grad = gpu.tensor(shape, values);
      adamW8bit(gpu, { ...device, grad }, maps, status, options);
      const margins = adamW8bitReference(
        { ...host, grad: Float64Array.from(values, (value) => value * factor) },
        host,
        options,
      );
      const [mCodes, vCodes] = await gpu.readBytes([device.mCodes, device.vCodes]);
      for (
        const [codes, expected, margin] of [
          [mCodes!, host.mCodes, margins.mMargin],
          [vCodes!, host.vCodes, margins.vMargin],
        ] as const
      ) {
        codes.forEach((code, i) => {
          compared++;
          if (code === expected[i]) return;
          // Rounding in f32 may fall on the other side of a middle, nowhere else.
          apart++;
          assert(
            Math.abs(code - expected[i]!) === 1 && margin[i]! < 3e-7,
            `step ${step}: code ${code} at ${i} for ${expected[i]}`,
          );
        });
        expected.set(codes);
      }
      assertClose("absmax", await gpu.read(device.absmax), host.absmax, { rtol: 2e-6, atol: 0 });
      assertClose("param", await gpu.read(device.param), host.param, { rtol: 2e-6, atol: 5e-6 });
      host.absmax.set(await gpu.read(device.absmax));
      host.param.set(await gpu.read(device.param));
      grad.free();
    }
    assert(apart <= compared / 2000, `${apart} of ${compared} codes differ`);
    if (gpu !== whole) gpu.close();
  });
}

Deno.test("adamW8bit() goes on where bitsandbytes does: zeros stay zero, small means keep their sign", async () => {
  const gpu = whole;
  const { device } = make8bit(gpu, [256], 1);
  const maps = adamW8bitMaps(gpu);
  const status = gpu.tensor([STATUS.length], Float32Array.of(1, 1, 1));
  const before = await gpu.read(device.param);
  const step = (values: Float32Array) =>
    adamW8bit(gpu, { ...device, grad: gpu.tensor([256], values) }, maps, status, {
      ...OPTIONS,
      weightDecay: 0,
      step: 1,
    });
  step(new Float32Array(256));
  assertEquals([...await gpu.read(device.param)], [...before], "no gradient, no change");
  assertEquals([...await gpu.read(device.absmax)], [0, 0]);
  const values = new Float32Array(256);
  values.set([1, -1e-9, 1e-9, 0.5]);
  step(values);
  const [codes] = await gpu.readBytes([device.mCodes]);
  // 1 is the last value of the map, a tiny negative one the first below zero, a tiny positive one zero itself.
  assertEquals([...codes!.subarray(0, 3), codes![4]], [255, 126, 127, 127]);
});

Deno.test("adamW8bit() changes no byte where a gradient is not finite, and refuses what does not fit", async () => {
  const gpu = whole;
  const { device } = make8bit(gpu, [16, 64], 3);
  const maps = adamW8bitMaps(gpu);
  const grad = gpu.tensor([16, 64], normal(4, 1024));
  const options = { ...OPTIONS, step: 1 };
  const good = gpu.tensor([STATUS.length], Float32Array.of(1, 1, 1));
  adamW8bit(gpu, { ...device, grad }, maps, good, options);
  const kept = Object.values(device);
  const before = await gpu.readBytes(kept);
  adamW8bit(gpu, { ...device, grad }, maps, gpu.zeros([STATUS.length]), options);
  const after = await gpu.readBytes(kept);
  assert(after.every((bytes, i) => bytes.every((byte, at) => byte === before[i]![at])), "changed");
  const state = { ...device, grad };
  await assertThrows(
    () => adamW8bit(gpu, { ...state, mCodes: gpu.zeros([16, 8], "u32") }, maps, good, options),
    "takes codes [16,16]",
  );
  await assertThrows(
    () => adamW8bit(gpu, { ...state, absmax: gpu.zeros([3, 2]) }, maps, good, options),
    "and 4 scales",
  );
  await assertThrows(() => adamW8bit(gpu, state, maps, good, { ...options, step: 0 }), "steps count from 1");
  assertEquals([asRows(gpu.zeros([12])).shape, asRows(device.param).shape], [[3, 4], [16, 64]]);
});
