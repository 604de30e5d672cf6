/** `adapter_config.json`, and what is asked of it. */
import { encodeAdapterConfig, readAdapterConfig } from "../../../checkpoint/peft_config.ts";
import { isTarget, loraRank, loraScaling } from "../../../checkpoint/peft_targets.ts";
import { assert } from "../../support/assert_close.ts";
import { GOLDEN } from "../../support/files.ts";
import { memoryFile } from "../memory_files.ts";
import { mutateJson } from "../mutate.ts";
import type { Reader } from "../reader.ts";

const SOURCES = [
  Deno.readTextFileSync(`${GOLDEN}/adapter/adapter_config.json`),
  JSON.stringify({
    peft_type: "LORA",
    r: 8,
    lora_alpha: 16,
    target_modules: ["q_proj", "v_proj"],
    exclude_modules: ["layers.0.self_attn.q_proj"],
    layers_to_transform: [0, 1],
    rank_pattern: { "q_proj": 4 },
    alpha_pattern: { "v_proj": 8 },
    modules_to_save: ["embed_tokens"],
    use_rslora: true,
  }),
];
const HINTS = {
  keys: [
    "r",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "bias",
    "use_dora",
    "init_lora_weights",
    "peft_type",
    "fan_in_fan_out",
    "megatron_config",
  ],
  values: ['"all-linear"', '".*(q|v)_proj"', '"((a+)+)+$"', '["q_proj"]', '"none"', '"LORA"', "[0]", "8"],
};
const MODULES = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "lm_head"];

export const reader: Reader = {
  everyday: 500,
  accepted: [0.05, 0.9],
  make: (dice) => mutateJson(dice, dice.pick(SOURCES), HINTS),
  async read(input) {
    const config = await readAdapterConfig("adapter", memoryFile(input));
    for (const module of MODULES) {
      isTarget(config, module);
      assert(Number.isSafeInteger(loraRank(config, module)), "a rank is no whole number");
      assert(Number.isFinite(loraScaling(config, module)), "a scaling is not finite");
    }
    JSON.parse(encodeAdapterConfig(config));
  },
};
