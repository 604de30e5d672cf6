/** `config.json` of a model's folder, and whether its weights are those. */
import { readConfig } from "../../../model/config.ts";
import { configJson } from "../../../model/config_json.ts";
import { settleContext } from "../../../model/context.ts";
import { assert } from "../../support/assert_close.ts";
import { GOLDEN } from "../../support/files.ts";
import { mutateJson } from "../mutate.ts";
import type { Reader } from "../reader.ts";

const SOURCES = ["mha", "gqa", "neox", "qwen3", "granite", "smollm3", "phi3", "gemma2", "gemma3", "mha-bnb4"]
  .map((name) => Deno.readTextFileSync(`${GOLDEN}/${name}/config.json`));
const HINTS = {
  keys: [
    "model_type",
    "head_dim",
    "num_hidden_layers",
    "num_key_value_heads",
    "vocab_size",
    "rope_scaling",
    "rope_parameters",
    "rope_theta",
    "rotary_pct",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "no_rope_layers",
    "no_rope_layer_interval",
    "attention_multiplier",
    "logits_scaling",
    "quantization_config",
    "torch_dtype",
    "tie_word_embeddings",
  ],
  values: [
    '"llama"',
    '"mistral"',
    '"qwen2"',
    '"qwen3"',
    '"gemma2"',
    '"gemma3_text"',
    '"gpt_neox"',
    '"granite"',
    '"olmo2"',
    '"smollm3"',
    "[1,0]",
    '"phi3"',
    '["sliding_attention","full_attention","full_attention"]',
    "true",
    '{"type":"linear","factor":2}',
    '{"rope_type":"yarn","factor":4}',
    '{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":64}',
    '{"type":"su","short_factor":[1,1,1,1],"long_factor":[2,2,2,2]}',
    '{"type":"dynamic","factor":1e308}',
    '{"load_in_4bit":true}',
    "1024",
    "100000",
    "4",
    "64",
    "256",
  ],
};

export const reader: Reader = {
  everyday: 500,
  accepted: [0.05, 0.9],
  make: (dice) => mutateJson(dice, dice.pick(SOURCES), HINTS),
  async read(input, folder) {
    Deno.writeFileSync(`${folder}/config.json`, input);
    const config = await readConfig(folder);
    const { config: settled } = await settleContext(config, { contextSize: 100 });
    for (const value of Object.values(settled)) {
      assert(typeof value !== "number" || Number.isFinite(value), "a number of the config is not finite");
    }
    JSON.stringify(configJson(settled));
  },
};
