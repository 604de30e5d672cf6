import { join } from "../../checkpoint/deps.ts";
import { isBnb4, readBnb4 } from "../../checkpoint/bitsandbytes.ts";
import { toF32 } from "../../checkpoint/dtype.ts";
import { openWeights, type WeightReader } from "../../checkpoint/weights.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN } from "../support/files.ts";

const WEIGHT = "model.layers.0.self_attn.q_proj.weight";
const STATE = `${WEIGHT}.quant_state.bitsandbytes__nf4`;

/** A reader whose tensors are changed: undefined removes one. */
function changed(
  reader: WeightReader,
  changes: Record<string, Uint8Array<ArrayBuffer> | undefined>,
): WeightReader {
  const bytes = (name: string) => changes[name]!;
  const isChanged = (name: string) => Object.hasOwn(changes, name);
  return {
    names: () => reader.names(),
    has: (name) => isChanged(name) ? changes[name] !== undefined : reader.has(name),
    info: (name) => {
      if (!isChanged(name)) return reader.info(name);
      return { name, dtype: "U8", shape: [bytes(name).length], byteLength: bytes(name).length };
    },
    read: (name) => isChanged(name) ? Promise.resolve(bytes(name)) : reader.read(name),
    readInto: (name, from, into) => reader.readInto(name, from, into),
    close: () => reader.close(),
  };
}

Deno.test("readBnb4() reads parts that decode to within half a code of the original weights", async () => {
  const quantised = await openWeights(join(GOLDEN, "mha-bnb4"));
  const original = await openWeights(join(GOLDEN, "mha"));
  for (const name of original.names()) {
    assertEquals(isBnb4(quantised, name), name.includes("_proj"), name);
    if (!name.includes("_proj")) continue;
    const weight = await readBnb4(quantised, name);
    const codes = await quantised.read(name);
    const expected = toF32(await original.read(name), "F32");
    assertEquals([...weight.shape], original.info(name).shape, name);
    let worst = 0;
    for (let i = 0; i < expected.length; i++) {
      const block = Math.floor(i / weight.blockSize);
      const nested = weight.nestedAbsmax![Math.floor(block / weight.nestedBlockSize)]!;
      const absmax = weight.nestedCode![weight.absmax[block]!]! * nested + weight.nestedOffset;
      const code = i % 2 === 0 ? codes[i >> 1]! >> 4 : codes[i >> 1]! & 15;
      worst = Math.max(worst, Math.abs(weight.quantMap[code]! * absmax - expected[i]!) / absmax);
    }
    // The widest gap of the NF4 codes is 0.304 (from -1 to -0.696); the rest is the absmax's own rounding.
    assert(worst > 0.1 && worst < 0.304 / 2 + 0.02, `${name} is off by ${worst} of its block's maximum`);
  }
  quantised.close();
  original.close();
});

Deno.test("readBnb4() reads a weight without double quantisation", async () => {
  const reader = await openWeights(join(GOLDEN, "mha-bnb4"));
  const state = { quant_type: "nf4", blocksize: 64, dtype: "float16", shape: [64, 64] };
  const absmax = Float32Array.from({ length: 64 }, (_, i) => i + 1);
  const single = changed(reader, {
    [STATE]: new TextEncoder().encode(JSON.stringify(state)),
    [`${WEIGHT}.absmax`]: new Uint8Array(absmax.buffer),
    [`${WEIGHT}.nested_absmax`]: undefined,
    [`${WEIGHT}.nested_quant_map`]: undefined,
  });
  const weight = await readBnb4(single, WEIGHT);
  assertEquals([...weight.absmax], [...absmax]);
  assertEquals([weight.nestedAbsmax, weight.nestedCode, weight.nestedOffset], [undefined, undefined, 0]);
  reader.close();
});

Deno.test("readBnb4() refuses other kinds and damaged states by name", async () => {
  const reader = await openWeights(join(GOLDEN, "mha-bnb4"));
  const state = JSON.parse(new TextDecoder().decode(await reader.read(STATE)));
  const withState = (change: object) =>
    changed(reader, { [STATE]: new TextEncoder().encode(JSON.stringify({ ...state, ...change })) });
  const refused = (changes: WeightReader, ...says: string[]) =>
    assertThrows(() => readBnb4(changes, WEIGHT), WEIGHT, ...says);

  await refused(withState({ quant_type: "fp4" }), "fp4", "only NF4");
  await refused(withState({ blocksize: 63 }), "block size");
  await refused(withState({ blocksize: 2 ** 20 }), "block size");
  await refused(withState({ shape: [64] }), "shape");
  await refused(withState({ shape: [64, -64] }), "shape");
  await refused(withState({ shape: [64, 128] }), "has 2048 bytes", "needs 4096");
  await refused(withState({ nested_dtype: "float16" }), "second quantisation");
  await refused(withState({ nested_offset: "0" }), "second quantisation");
  await refused(withState({ nested_blocksize: 32 }), "nested_absmax", "has 4 bytes", "needs 8");
  await refused(changed(reader, { [STATE]: new TextEncoder().encode("{") }), "not JSON");
  await refused(changed(reader, { [STATE]: new TextEncoder().encode("null") }), "only NF4");
  await refused(changed(reader, { [STATE]: new Uint8Array(5000) }), "too long");
  await refused(changed(reader, { [`${WEIGHT}.absmax`]: new Uint8Array(63) }), "absmax", "63 bytes");
  await refused(changed(reader, { [STATE]: undefined }), "no NF4");
  const offset = JSON.stringify(state).replace(/"nested_offset":[^,}]+/, '"nested_offset":1e999');
  await refused(changed(reader, { [STATE]: new TextEncoder().encode(offset) }), "second quantisation");
  const scale = new Uint8Array(Float32Array.of(NaN).buffer);
  await refused(changed(reader, { [`${WEIGHT}.nested_absmax`]: scale }), "nested_absmax", "element 0", "NaN");

  const fp4 = changed(reader, { [STATE]: undefined, [STATE.replace("nf4", "fp4")]: new Uint8Array(1) });
  await assertThrows(() => isBnb4(fp4, WEIGHT), WEIGHT, "FP4");
  const int8 = changed(reader, {
    [STATE]: undefined,
    [WEIGHT.replace(".weight", ".SCB")]: new Uint8Array(1),
  });
  await assertThrows(() => isBnb4(int8, WEIGHT), WEIGHT, "8-bit");
  reader.close();
});
