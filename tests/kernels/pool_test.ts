import { TYPICAL_LIMITS } from "../../kernels/dry_device.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { type MemoryUse, PURPOSES } from "../../kernels/pool.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";

const KIB = 1024;
const MIB = 2 ** 20;

/** A device that counts, and what is on it before anything is made. */
function dry(memoryLimitBytes = Infinity): { gpu: Gpu; ring: number } {
  const ring = Gpu.dry({ limits: TYPICAL_LIMITS }).memory.liveBytes;
  return { gpu: Gpu.dry({ limits: TYPICAL_LIMITS, memoryLimitBytes: memoryLimitBytes + ring }), ring };
}

/** f32 tensor of so many KiB. */
function make(gpu: Gpu, kib: number, label = "x") {
  return gpu.empty([kib * KIB / 4], "f32", label);
}

const sum = (use: MemoryUse) => PURPOSES.reduce((total, name) => total + use.byPurpose[name], 0);

Deno.test("The pool reuses a freed buffer and refuses to free or use it twice", async () => {
  using gpu = await Gpu.open();
  const x = make(gpu, 4);
  const { id } = x.bound.buffer;
  x.free();
  const y = make(gpu, 4);
  assertEquals(y.bound.buffer.id, id);
  y.free();
  await assertThrows(() => y.free(), "freed twice");
  await assertThrows(() => y.bound, "after it was freed");
  await assertThrows(() => gpu.empty([0, 4]), "above 0");
});

Deno.test("Idle buffers of other sizes are given back before a new one passes the limit", async () => {
  for (const open of [() => Gpu.open({ memoryLimitBytes: 12 * KIB + dry().ring }), () => dry(12 * KIB).gpu]) {
    using gpu = await open();
    const [x, y] = [make(gpu, 4), make(gpu, 8)];
    await assertThrows(() => make(gpu, 1), "Not enough GPU memory");
    y.free();
    const [a, b] = [make(gpu, 2), make(gpu, 5)];
    await assertThrows(() => make(gpu, 2), "Not enough GPU memory");
    for (const tensor of [x, a, b]) tensor.free();
    make(gpu, 12);
    await gpu.settle();
  }
});

Deno.test("What is held stays near the most that was in use at once", () => {
  // Within its limit by half as much again, so that larger buffers may serve.
  const limit = 1.6 * 2 ** 30;
  const { gpu, ring } = dry(limit);
  const most = ring + 2 ** 30;
  for (let step = 0; step < 3; step++) {
    // 1 GiB at most in use, in sizes that cannot serve each other without much waste.
    for (const sizes of [[16], [8, 7], [3, 2, 1], [12], [5, 5, 5], [9]]) {
      const tensors = sizes.map((size) => make(gpu, size * 64 * KIB));
      assert(gpu.memory.heldBytes <= most * 5 / 4, `${gpu.memory.heldBytes - ring} bytes held`);
      for (const tensor of tensors) tensor.free();
    }
  }
  assert(gpu.memory.peakBytes >= most && gpu.memory.peak.liveBytes <= most, `peak ${gpu.memory.peakBytes}`);
});

Deno.test("Room is made by the smallest idle buffer that is enough", () => {
  const { gpu } = dry(16 * MIB);
  const tensors = [8, 5, 2].map((size) => make(gpu, size * KIB));
  for (const tensor of tensors) tensor.free();
  const before = gpu.memory.heldBytes;
  make(gpu, 3 * KIB);
  assertEquals(gpu.memory.heldBytes - before, (3 - 2) * MIB);
});

Deno.test("Steps that ask for the same sizes ask the driver for nothing new", () => {
  const { gpu } = dry();
  const step = () => {
    const kept = make(gpu, 40);
    for (let layer = 0; layer < 4; layer++) {
      const tensors = [10, 4, 4, 2].map((size) => make(gpu, size));
      for (const tensor of tensors) tensor.free();
    }
    kept.free();
  };
  step();
  const before = gpu.memory.buffersCreated;
  step();
  assertEquals(gpu.memory.buffersCreated, before);
});

Deno.test("Memory is counted by purpose, and the peak knows its phase", () => {
  const { gpu, ring } = dry();
  const base = () => {
    using _ = gpu.memory.purpose("base");
    return make(gpu, 8);
  };
  const kept = base();
  gpu.memory.at("forward, layer 1");
  using _ = gpu.memory.purpose("activations");
  const x = make(gpu, 4);
  gpu.memory.assign(x, "checkpoints");
  gpu.memory.at("backward, layer 1");
  const y = make(gpu, 2);
  y.free();
  gpu.memory.at("optimiser");
  const expected = { base: 8 * KIB, checkpoints: 4 * KIB, activations: 2 * KIB, scratch: ring };
  const { byPurpose, phase, heldBytes, liveBytes } = gpu.memory.peak;
  assertEquals(Object.fromEntries(Object.entries(byPurpose).filter(([, bytes]) => bytes > 0)), expected);
  assertEquals([phase, heldBytes, liveBytes], ["backward, layer 1", ring + 14 * KIB, ring + 14 * KIB]);
  assertEquals([gpu.memory.liveBytes, sum(gpu.memory.use)], [ring + 12 * KIB, ring + 12 * KIB]);
  for (const tensor of [x, kept]) tensor.free();
  assertEquals([gpu.memory.liveBytes, sum(gpu.memory.use)], [ring, ring]);
  gpu.memory.resetPeak();
  assertEquals([gpu.memory.peakBytes, gpu.memory.heldBytes], [ring, ring]);
});

Deno.test("What reads go through is host memory, is kept up to 64 MiB, and is no part of the device's", async () => {
  const { gpu } = dry();
  const read = async (kib: number) => {
    const x = make(gpu, kib);
    await gpu.read(x);
    x.free();
    return gpu.memory.buffersCreated;
  };
  await read(1);
  gpu.memory.resetPeak();
  const before = gpu.memory.heldBytes;
  const first = await read(40 * KIB);
  assertEquals([gpu.memory.heldBytes, gpu.memory.peakBytes], [before + 40 * MIB, before + 40 * MIB]);
  assertEquals(await read(40 * KIB), first);
  assertEquals(await read(65 * KIB), first + 2);
  assertEquals(await read(65 * KIB), first + 3, "a buffer of 65 MiB for reads is not kept");
});

Deno.test("A dry device allocates like a real one and reads as zeros", async () => {
  const use = async (gpu: Gpu) => {
    const x = gpu.tensor([300, 8], () => new Float32Array(2400).fill(1));
    const y = gpu.zeros([300, 8], "bf16");
    x.free();
    const z = gpu.empty([200, 8], "f32", "z");
    const values = await gpu.read(y);
    y.free();
    z.free();
    return { values: [...values], peak: gpu.memory.peak };
  };
  using real = await Gpu.open({ maxBindingBytes: 4096 });
  using counting = Gpu.dry({ limits: TYPICAL_LIMITS, maxBindingBytes: 4096 });
  assertEquals(await use(counting), await use(real));
  assert(counting.isDry && !real.isDry, "only one of them is dry");
});
