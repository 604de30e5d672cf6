/** The state that bitsandbytes keeps beside a weight in 4 bits. */
import { readBnb4 } from "../../../checkpoint/bitsandbytes.ts";
import { openWeightsFile } from "../../../checkpoint/weights.ts";
import { assert } from "../../support/assert_close.ts";
import { safetensorsBytes } from "../../checkpoint/support.ts";
import { memoryFile } from "../memory_files.ts";
import { mutateJson } from "../mutate.ts";
import type { Reader } from "../reader.ts";

const STATE = JSON.stringify({
  quant_type: "nf4",
  blocksize: 64,
  dtype: "float16",
  shape: [8, 16],
  nested_blocksize: 256,
  nested_dtype: "float32",
  nested_offset: 0.25,
});
const HINTS = {
  keys: ["quant_type", "blocksize", "shape", "nested_blocksize", "nested_offset"],
  values: ['"nf4"', '"fp4"', "32", "64", "128", "[8,16]", "[16,8]", "[1e9,1e9]", '"float32"'],
};

/** One weight with all its parts, and this state. */
function fileOf(state: Uint8Array): Uint8Array {
  const parts: readonly [name: string, dtype: string, shape: readonly number[], bytes: number][] = [
    ["w", "U8", [64, 1], 64],
    ["w.nested_absmax", "F32", [1], 4],
    ["w.nested_quant_map", "F32", [256], 1024],
    ["w.quant_map", "F32", [16], 64],
    ["w.absmax", "U8", [2], 2],
    ["w.quant_state.bitsandbytes__nf4", "U8", [state.length], state.length],
  ];
  let at = 0;
  const members = parts.map(([name, dtype, shape, bytes]) => {
    const offsets = [at, at += bytes];
    return `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: offsets })}`;
  });
  const data = new Uint8Array(at);
  data.set(state, at - state.length);
  return safetensorsBytes(`{${members}}`, data);
}

export const reader: Reader = {
  everyday: 300,
  accepted: [0.02, 0.9],
  make: (dice) => mutateJson(dice, STATE, HINTS),
  async read(input) {
    const weights = await openWeightsFile("x.safetensors", { files: memoryFile(fileOf(input)) });
    const { shape, quantMap } = await readBnb4(weights, "w");
    assert(shape[0] * shape[1] === 128 && quantMap.length === 16, "a weight of another size than its codes");
  },
};
