import {
  allFinite,
  assertFinite,
  type Dtype,
  DTYPE_BYTES,
  fromF32,
  isDtype,
  toF32,
} from "../../checkpoint/dtype.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { normal } from "../support/random.ts";

function allHalves(): Uint16Array<ArrayBuffer> {
  return Uint16Array.from({ length: 65536 }, (_, i) => i);
}

/** The value of an f16 from its definition: (-1)^s 2^(e - 15) (1 + m / 1024). */
function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
}

Deno.test("toF32() gives the defined value of every F16 and BF16", () => {
  const halves = allHalves();
  const fromF16 = toF32(new Uint8Array(halves.buffer), "F16");
  const fromBf16 = toF32(new Uint8Array(halves.buffer), "BF16");
  const view = new DataView(new ArrayBuffer(4));
  for (let i = 0; i < 65536; i++) {
    assert(
      Object.is(fromF16[i], halfValue(i)),
      `F16 0x${i.toString(16)}: ${fromF16[i]} is not ${halfValue(i)}`,
    );
    view.setUint16(2, i, true);
    const expected = view.getFloat32(0, true);
    assert(Object.is(fromBf16[i], expected), `BF16 0x${i.toString(16)}: ${fromBf16[i]} is not ${expected}`);
  }
});

Deno.test("fromF32() gives every F16 and BF16 its own bits back, NaN staying NaN", () => {
  const halves = allHalves();
  for (const dtype of ["F16", "BF16"] as const) {
    const values = toF32(new Uint8Array(halves.buffer), dtype);
    const back = new Uint16Array(fromF32(values, dtype).buffer);
    const again = toF32(new Uint8Array(back.buffer), dtype);
    for (let i = 0; i < 65536; i++) {
      const same = Number.isNaN(values[i]) ? Number.isNaN(again[i]) : back[i] === i;
      assert(same, `${dtype} 0x${i.toString(16)} came back as 0x${back[i]!.toString(16)}`);
    }
  }
});

Deno.test("fromF32() rounds to nearest, ties to even, and overflows to inf", () => {
  const cases = [
    // One unit is 2^-10 (F16) or 2^-7 (BF16) at 1; half a unit is a tie.
    ["F16", 1 + 2 ** -11, 1],
    ["F16", 1 + 3 * 2 ** -11, 1 + 2 ** -9],
    ["F16", 1 + 2 ** -11 + 2 ** -20, 1 + 2 ** -10],
    ["F16", 65519, 65504],
    ["F16", 65520, Infinity],
    ["F16", 2 ** -25, 0],
    ["F16", 2 ** -25 * 1.01, 2 ** -24],
    ["BF16", 1 + 2 ** -8, 1],
    ["BF16", 1 + 3 * 2 ** -8, 1 + 2 ** -6],
    ["BF16", 1 + 2 ** -8 + 2 ** -20, 1 + 2 ** -7],
    ["BF16", 3.4028234663852886e38, Infinity],
    ["BF16", -3.4028234663852886e38, -Infinity],
  ] as const;
  for (const [dtype, value, expected] of cases) {
    const [actual] = toF32(fromF32(Float32Array.of(value), dtype), dtype);
    assert(Object.is(actual, expected), `${value} as ${dtype}: got ${actual}, expected ${expected}`);
  }
  const lowNaN = new Float32Array(Uint32Array.of(0x7f800001).buffer);
  assert(Number.isNaN(toF32(fromF32(lowNaN, "BF16"), "BF16")[0]), "a NaN with low bits only became a number");
});

Deno.test("toF32() reads whole and unaligned elements of every type", () => {
  // The last one tells signed from unsigned.
  const upTo = (last: number) => [0, 1, 100, last];
  const stores: [Dtype, number[], ArrayBufferView<ArrayBuffer>][] = [
    ["F64", upTo(-1.5), Float64Array.from(upTo(-1.5))],
    ["F32", upTo(-1.5), Float32Array.from(upTo(-1.5))],
    ["I64", upTo(-2), BigInt64Array.from(upTo(-2).map(BigInt))],
    ["U64", upTo(2 ** 63), BigUint64Array.from(upTo(2 ** 63).map(BigInt))],
    ["I32", upTo(-2), Int32Array.from(upTo(-2))],
    ["U32", upTo(2 ** 31), Uint32Array.from(upTo(2 ** 31))],
    ["I16", upTo(-2), Int16Array.from(upTo(-2))],
    ["U16", upTo(65_535), Uint16Array.from(upTo(65_535))],
    ["I8", upTo(-2), Int8Array.from(upTo(-2))],
    ["U8", upTo(255), Uint8Array.from(upTo(255))],
  ];
  for (const [dtype, values, store] of stores) {
    const bytes = new Uint8Array(store.buffer);
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    assertEquals([...toF32(bytes, dtype)], values, dtype);
    assertEquals([...toF32(shifted.subarray(1), dtype)], values, `unaligned ${dtype}`);
    assertEquals(DTYPE_BYTES[dtype], bytes.length / 4, `${dtype} size`);
  }
  assert(!isDtype("F4") && !isDtype("toString") && isDtype("BF16"), "isDtype() is wrong");
});

Deno.test("toF32() refuses a partial last element and 8-bit floats", async () => {
  await assertThrows(() => toF32(new Uint8Array(7), "F32"), "7 bytes", "multiple of 4");
  await assertThrows(() => toF32(new Uint8Array(8), "F8_E4M3"), "F8_E4M3", "BF16");
});

Deno.test("fromF32() copies: later changes of its input do not show", () => {
  const values = normal(11, 8);
  const bytes = fromF32(values.subarray(2, 6), "F32");
  const expected = [...values.subarray(2, 6)];
  values.fill(7);
  assertEquals([...toF32(bytes, "F32")], expected);
});

Deno.test("assertFinite() names the tensor and the first bad element", async () => {
  const values = normal(3, 1000);
  assertFinite("model.norm.weight", values);
  for (const bad of [NaN, Infinity, -Infinity]) {
    values[737] = bad;
    await assertThrows(
      () => assertFinite("model.norm.weight", values),
      '"model.norm.weight"',
      "element 737",
      `${bad}`,
    );
  }
});

Deno.test("allFinite() agrees with the values themselves: every half in either half of a word, single floats at the limits", () => {
  for (const dtype of ["F16", "BF16"] as const) {
    const filler = fromF32(Float32Array.of(-1.5, 2, 0.25), dtype);
    for (let half = 0; half < 65536; half++) {
      const bits = new Uint16Array(filler.buffer.slice(0));
      bits[half % 3] = half;
      const bytes = new Uint8Array(bits.buffer);
      const expected = toF32(bytes, dtype).every(Number.isFinite);
      if (allFinite(bytes, dtype) !== expected) throw new Error(`${dtype} 0x${half.toString(16)}`);
    }
  }
  const singles = [0, 0x80000000, 1, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7f800001, 0xffffffff];
  for (const [i, bits] of singles.entries()) {
    const bytes = new Uint8Array(Uint32Array.of(0x3f800000, bits, 0xbf800000).buffer);
    assertEquals(allFinite(bytes, "F32"), i < 5, bits.toString(16));
    // At an offset that no word can have.
    const shifted = new Uint8Array(14);
    shifted.set(bytes, 1);
    assertEquals(allFinite(shifted.subarray(1, 13), "F32"), i < 5, `${bits.toString(16)}, shifted`);
  }
  assertEquals(allFinite(new Uint8Array(0), "F16"), true);
});
