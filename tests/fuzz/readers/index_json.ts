/** `model.safetensors.index.json` over two shards. */
import { openWeights } from "../../../checkpoint/weights.ts";
import { safetensorsBytes } from "../../checkpoint/support.ts";
import { assert } from "../../support/assert_close.ts";
import { memoryFolder } from "../memory_files.ts";
import { mutateJson } from "../mutate.ts";
import type { Reader } from "../reader.ts";

const SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] as const;
const NAMES = [["model.embed_tokens.weight", "model.norm.weight"], ["lm_head.weight", "__proto__"]] as const;

function shard(names: readonly string[]): Uint8Array {
  const members = names.map((name, i) =>
    `${JSON.stringify(name)}:{"dtype":"F32","shape":[2],"data_offsets":[${8 * i},${8 * i + 8}]}`
  );
  return safetensorsBytes(`{${members}}`, Uint8Array.from({ length: 16 }, (_, i) => i));
}

const FILES = Object.fromEntries(SHARDS.map((name, i) => [name, shard(NAMES[i]!)]));
const INDEX = JSON.stringify({
  metadata: { total_size: 32 },
  weight_map: Object.fromEntries(NAMES.flatMap((names, i) => names.map((name) => [name, SHARDS[i]]))),
});

const HINTS = {
  keys: ["weight_map", "metadata", ...NAMES.flat()],
  values: [
    ...SHARDS,
    "none.safetensors",
    "../model.safetensors",
    "/etc/passwd",
    "a/b.safetensors",
    "C:\\x.safetensors",
    "con.safetensors",
    "x\u0000.safetensors",
    ".safetensors",
    "model.safetensors.index.json",
  ].map((name) => JSON.stringify(name)),
};

export const reader: Reader = {
  everyday: 500,
  accepted: [0.02, 0.6],
  make: (dice) => mutateJson(dice, INDEX, HINTS),
  async read(input, folder) {
    const files = memoryFolder({ ...FILES, "model.safetensors.index.json": input });
    const weights = await openWeights(folder, { files });
    for (const name of weights.names()) {
      assert(NAMES.flat().some((each) => each === name), `it gives "${name}", which no file has`);
      assert((await weights.read(name)).length === 8, `"${name}" has other bytes`);
    }
    weights.close();
  },
};
