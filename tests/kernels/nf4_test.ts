import { openWeights } from "../../checkpoint/weights.ts";
import { readBnb4 } from "../../checkpoint/bitsandbytes.ts";
import { toF32 } from "../../checkpoint/dtype.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { BLOCK, dynamicMap, NESTED_BLOCK, NF4_VALUES } from "../../kernels/nf4/format.ts";
import { emptyNf4, Nf4Quantiser, type Nf4Weight, quantiseNf4, uploadNf4 } from "../../kernels/nf4/nf4.ts";
import {
  dequantiseNf4Reference,
  dequantiseScalesReference,
  nearestCode,
  quantiseNf4Reference,
  quantiseScalesReference,
} from "../../kernels/nf4/reference.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { inFormat } from "../support/numeric.ts";
import { normal } from "../support/random.ts";

const LINEAR = "model.layers.0.self_attn.q_proj.weight";

Deno.test("The sixteen values, their midpoints and the neighbours of each take the documented code", () => {
  NF4_VALUES.forEach((value, code) => assertEquals(nearestCode(value), code));
  for (let code = 0; code < 15; code++) {
    const midpoint = (NF4_VALUES[code]! + NF4_VALUES[code + 1]!) / 2;
    assertEquals(nearestCode(midpoint), code, `midpoint ${code}`);
    assertEquals(nearestCode(midpoint + 1e-7), code + 1, `above midpoint ${code}`);
    assertEquals(nearestCode(midpoint - 1e-7), code, `below midpoint ${code}`);
  }
});

Deno.test("The constants, and the values that the kernels decode, are those that bitsandbytes stores", async () => {
  using gpu = await Gpu.open({ poison: true });
  const reader = await openWeights("tests/golden/mha-bnb4");
  const { nestedCode, quantMap, blockSize, nestedBlockSize } = await readBnb4(reader, LINEAR);
  reader.close();
  assertEquals([...NF4_VALUES], [...quantMap], "sixteen values");
  assertEquals([...dynamicMap()], [...nestedCode!], "dynamic map");
  assertEquals([BLOCK, NESTED_BLOCK], [blockSize, nestedBlockSize], "block sizes");
  const everyCode = Uint8Array.of(0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef);
  const weight = uploadNf4(gpu, { shape: [1, 16], codes: everyCode, absmax: Float32Array.of(1) }, "codes");
  assertEquals([...await gpu.read(weight.dequantise(gpu))], [...quantMap], "decoded");
});

Deno.test("quantiseNf4() makes the reference's codes and scales, and dequantises to its values", async () => {
  using gpu = await Gpu.open({ poison: true });
  for (const [rows, width] of [[1, 8], [3, 24], [5, 176], [64, 64], [130, 512]] as const) {
    const values = normal(rows, rows * width, 0.02);
    values.fill(0, 0, Math.min(64, values.length / 2)); // a block of zeros has scale 0
    const expected = quantiseNf4Reference(values);
    const label = `(${rows}, ${width})`;
    const plain = quantiseNf4(gpu, gpu.tensor([rows, width], values), { doubleQuant: false });
    const [codes] = await gpu.readBytes([plain.codes]);
    assertCodesClose(label, codes!, expected.codes);
    assertEquals([...await gpu.read(plain.absmax)], [...expected.absmax], `${label} scales`);
    const nested = quantiseNf4(gpu, gpu.tensor([rows, width], values));
    const scales = quantiseScalesReference(expected.absmax);
    const dequantised = dequantiseNf4Reference({
      codes: expected.codes,
      absmax: dequantiseScalesReference(scales),
    });
    assertMostlyClose(label, await gpu.read(nested.dequantise(gpu)), dequantised);
  }
});

Deno.test("Chunks of rows in any format give the codes and scales of the whole in f32", async () => {
  using gpu = await Gpu.open({ poison: true });
  using split = await Gpu.open({ poison: true, maxBindingBytes: 8192 });
  const [rows, width] = [200, 24];
  for (const format of ["f32", "bf16", "f16"] as const) {
    for (const doubleQuant of [true, false]) {
      const { tensor, values } = inFormat(gpu, [rows, width], normal(3, rows * width), format);
      const whole = quantiseNf4(gpu, gpu.tensor([rows, width], Float32Array.from(values)), { doubleQuant });
      for (const device of [gpu, split]) {
        const x = device === gpu ? tensor : inFormat(device, [rows, width], normal(3, 4800), format).tensor;
        const before = device.memory.liveBytes;
        const quantiser = new Nf4Quantiser(device, emptyNf4(device, [rows, width], { doubleQuant }));
        for (const [start, end] of [[0, 64], [64, 192], [192, 200]] as const) {
          quantiser.add(x.slice(start, end));
        }
        const parts = quantiser.finish();
        const tensors = ({ codes, absmax, nested }: Nf4Weight) =>
          nested ? [codes, absmax, nested.scales] : [codes, absmax];
        const expected = await gpu.readBytes(tensors(whole));
        for (const [i, bytes] of (await device.readBytes(tensors(parts))).entries()) {
          assertEquals([...bytes], [...expected[i]!], `${format}, part ${i}`);
        }
        const bytes = 4 * (rows * width / 8) + (doubleQuant ? 4 * 19 + 4 * 2 + 1024 : 4 * 75);
        assert(
          device.memory.liveBytes - before < bytes + 64,
          `${device.memory.liveBytes - before} bytes stay in use`,
        );
      }
    }
  }
});

Deno.test("Chunks of rows that do not line up, or do not fill the matrix, are refused", async () => {
  using gpu = await Gpu.open();
  const quantiser = new Nf4Quantiser(gpu, emptyNf4(gpu, [65, 24], { label: "q_proj" }));
  await assertThrows(() => quantiser.add(gpu.zeros([32, 24])), 'rows 0 to 32 of "q_proj"');
  await assertThrows(() => quantiser.add(gpu.zeros([64, 16])), "got [64,16]");
  quantiser.add(gpu.zeros([64, 24]));
  await assertThrows(() => quantiser.finish(), "only 64 rows");
  await assertThrows(() => quantiser.add(gpu.zeros([2, 24])), "rows 64 to 66");
  quantiser.add(gpu.zeros([1, 24]));
  assertEquals(quantiser.finish().shape, [65, 24]);
});

Deno.test("A block of the sixteen values round-trips exactly; -1 then 1 is the byte 0x0F", async () => {
  using gpu = await Gpu.open({ poison: true });
  const values = Float32Array.from({ length: 64 }, (_, i) => NF4_VALUES[i % 16]!);
  const weight = quantiseNf4(gpu, gpu.tensor([1, 64], values), { doubleQuant: false });
  assertEquals([...await gpu.read(weight.dequantise(gpu))], [...values]);
  // More weights than one axis of the grid has threads for.
  const [rows, bytes] = [4104, Uint8Array.from({ length: 8 }, (_, i) => 0x22 * i + 1)];
  const many = uploadNf4(gpu, {
    shape: [rows, 4096],
    codes: new Uint8Array(rows * 2048).map((_, i) => bytes[i % 8]!),
    absmax: new Float32Array(rows * 64).map((_, block) => 1 + block % 2),
  }, "many");
  const floats = await gpu.read(many.dequantise(gpu));
  assert(floats.every((value, i) => value === values[i % 16]! * (1 + (i >> 6) % 2)), "wrapped");
  const pair = quantiseNf4(gpu, gpu.tensor([1, 8], Float32Array.of(-1, 1, 0, 0, 0, 0, 0, 0)), {
    doubleQuant: false,
  });
  const [codes] = await gpu.readBytes([pair.codes]);
  assertEquals(codes![0], 0x0f);
});

Deno.test("Our codes of the golden model are those of bitsandbytes, and its checkpoint loads bit for bit", async () => {
  using gpu = await Gpu.open({ poison: true });
  const [original, quantised] = [
    await openWeights("tests/golden/mha"),
    await openWeights("tests/golden/mha-bnb4"),
  ];
  const { dtype, shape } = original.info(LINEAR);
  const values = toF32(await original.read(LINEAR), dtype);
  const ours = quantiseNf4(gpu, gpu.tensor(shape, values));
  const theirs = await readBnb4(quantised, LINEAR);
  const [codes] = await gpu.readBytes([ours.codes]);
  const theirCodes = await quantised.read(LINEAR);
  assertEquals([...codes!], [...theirCodes], "codes");
  const uploaded = uploadNf4(gpu, {
    shape: [shape[0]!, shape[1]!],
    codes: theirCodes,
    absmax: theirs.absmax,
    nested: { absmax: theirs.nestedAbsmax!, map: theirs.nestedCode!, offset: theirs.nestedOffset },
  }, LINEAR);
  const read = (weight: Nf4Weight) => gpu.read(weight.dequantise(gpu));
  assertClose("weights", await read(ours), await read(uploaded), { rtol: 1e-5, atol: 1e-7 });
  original.close();
  quantised.close();
});

Deno.test("The mean error on normal data is the published one for blocks of 64", async () => {
  using gpu = await Gpu.open();
  // Measured by bitsandbytes' own tests over 1024 x 1024 normal draws: 0.072798 +- 7 * 0.000074 absolute.
  const values = normal(11, 1024 * 1024);
  const weight = quantiseNf4(gpu, gpu.tensor([1024, 1024], values), { doubleQuant: false });
  const back = await gpu.read(weight.dequantise(gpu));
  const error = values.reduce((sum, value, i) => sum + Math.abs(value - back[i]!), 0) / values.length;
  assert(Math.abs(error - 0.072798) < 7 * 0.000074, `mean absolute error ${error}`);
});

Deno.test("Matrices whose rows are no multiple of 8 are refused", async () => {
  using gpu = await Gpu.open();
  await assertThrows(() => quantiseNf4(gpu, gpu.tensor([2, 12], normal(1, 24))), "K % 8 = 0");
});

/** A quotient within an ulp of a midpoint may take either code: the device may divide with a last bit's error. */
function assertCodesClose(label: string, actual: Uint8Array, expected: Uint8Array): void {
  let differ = 0;
  expected.forEach((byte, i) => differ += byte === actual[i] ? 0 : 1);
  assert(
    actual.length === expected.length && differ <= actual.length / 2000,
    `${label}: ${differ} bytes differ`,
  );
}

function assertMostlyClose(label: string, actual: Float32Array, expected: Float32Array): void {
  let differ = 0;
  expected.forEach((value, i) =>
    differ += Math.abs(value - actual[i]!) <= 1e-6 + 1e-5 * Math.abs(value) ? 0 : 1
  );
  assert(
    actual.length === expected.length && differ <= actual.length / 500,
    `${label}: ${differ} values differ`,
  );
}
