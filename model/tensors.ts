import type { LlamaConfig } from "./config.ts";

/** The linears of a layer, in the order of the checkpoint. */
export const LINEARS = {
  q_proj: "self_attn",
  k_proj: "self_attn",
  v_proj: "self_attn",
  o_proj: "self_attn",
  gate_proj: "mlp",
  up_proj: "mlp",
  down_proj: "mlp",
} as const;

export type LinearName = keyof typeof LINEARS;

export const LINEAR_NAMES = Object.keys(LINEARS) as LinearName[];

/** `model.layers.3.self_attn.q_proj` */
export function linearModule(layer: number, name: LinearName): string {
  return `model.layers.${layer}.${LINEARS[name]}.${name}`;
}

/** (outputs N, inputs K) of a linear. */
export function linearShape(config: LlamaConfig, name: LinearName): [number, number] {
  const { hidden_size: hidden, intermediate_size: ffn, head_dim } = config;
  const queries = config.num_attention_heads * head_dim;
  const keys = config.num_key_value_heads * head_dim;
  switch (name) {
    case "q_proj":
      return [queries, hidden];
    case "k_proj":
    case "v_proj":
      return [keys, hidden];
    case "o_proj":
      return [hidden, queries];
    case "gate_proj":
    case "up_proj":
      return [ffn, hidden];
    case "down_proj":
      return [hidden, ffn];
  }
}

/** Whether a linear has a bias. */
export function hasBias(config: LlamaConfig, name: LinearName): boolean {
  if (LINEARS[name] === "mlp") return config.mlp_bias;
  return config.attention_bias === "all" || (config.attention_bias === "qkv" && name !== "o_proj");
}

/** Name and shape of every tensor of a checkpoint, in its order. */
export function checkpointTensors(config: LlamaConfig): Map<string, readonly number[]> {
  const { vocab_size, hidden_size } = config;
  const tensors = new Map<string, readonly number[]>([["model.embed_tokens.weight", [
    vocab_size,
    hidden_size,
  ]]]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    tensors.set(`model.layers.${layer}.input_layernorm.weight`, [hidden_size]);
    for (const name of LINEAR_NAMES) {
      const shape = linearShape(config, name);
      tensors.set(`${linearModule(layer, name)}.weight`, shape);
      if (hasBias(config, name)) tensors.set(`${linearModule(layer, name)}.bias`, [shape[0]]);
    }
    tensors.set(`model.layers.${layer}.post_attention_layernorm.weight`, [hidden_size]);
  }
  tensors.set("model.norm.weight", [hidden_size]);
  if (!config.tie_word_embeddings) tensors.set("lm_head.weight", [vocab_size, hidden_size]);
  return tensors;
}

/** Parts of 4-bit weights, angles that older versions of `transformers` stored, and the second name of a tied head. */
export function isExpendable(name: string, { tie_word_embeddings }: LlamaConfig): boolean {
  return /\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*)$/.test(name) ||
    name.endsWith(".rotary_emb.inv_freq") || (tie_word_embeddings && name === "lm_head.weight");
}

/** Numbers in the whole model. */
export function countParameters(config: LlamaConfig): number {
  let total = 0;
  for (const shape of checkpointTensors(config).values()) total += shape.reduce((a, b) => a * b, 1);
  return total;
}
