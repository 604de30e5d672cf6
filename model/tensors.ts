/** Names and shapes of a checkpoint's tensors. */
import type { ModelConfig } from "./config.ts";
import { gptNeoxLayout } from "./gpt_neox/config.ts";
import { llamaLayout } from "./llama/config.ts";

/** One linear of a layer. */
export interface LinearSpec {
  /** Its module within the layer, such as `self_attn.q_proj`. */
  readonly name: string;
  readonly part: "attention" | "mlp";
  /** (outputs N, inputs K) */
  readonly shape: readonly [number, number];
  readonly hasBias: boolean;
  /** Whether the backward pass of a checkpointed layer makes its product again. */
  readonly isRecomputed: boolean;
}

/** Where an architecture's checkpoints have what, by names of modules. All layers are alike. */
export interface Layout {
  readonly embeddings: string;
  /** What the numbers of the layers follow. */
  readonly layers: string;
  /** The linears of a layer, in the order of the checkpoint. */
  readonly linears: readonly LinearSpec[];
  /** The last norm. */
  readonly norm: string;
  /** Whether norms are LayerNorm, which has a bias. */
  readonly normHasBias: boolean;
  readonly head: string;
}

/** The norms of a layer, before attention and before the MLP: every architecture's have these names. */
export const LAYER_NORMS = ["input_layernorm", "post_attention_layernorm"] as const;

/** Where the checkpoints of the config's architecture have what. */
export function layoutOf(config: ModelConfig): Layout {
  return config.model_type === "gpt_neox" ? gptNeoxLayout(config) : llamaLayout(config);
}

/** Every linear of every layer in the order of the checkpoint, by its module, such as `model.layers.3.self_attn.q_proj`. */
export function linearsOf(config: ModelConfig): Map<string, LinearSpec> {
  const { layers, linears } = layoutOf(config);
  const all = new Map<string, LinearSpec>();
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const linear of linears) all.set(`${layers}.${layer}.${linear.name}`, linear);
  }
  return all;
}

/** Names of the embeddings' tensor and, unless it is the same, the head's. */
export function tablesOf(config: ModelConfig): string[] {
  const { embeddings, head } = layoutOf(config);
  return [embeddings, ...config.tie_word_embeddings ? [] : [head]].map((module) => `${module}.weight`);
}

/** Name and shape of every tensor of a checkpoint, in its order. */
export function checkpointTensors(config: ModelConfig): Map<string, readonly number[]> {
  const { vocab_size, hidden_size } = config;
  const layout = layoutOf(config);
  const tensors = new Map<string, readonly number[]>();
  const addNorm = (module: string) => {
    tensors.set(`${module}.weight`, [hidden_size]);
    if (layout.normHasBias) tensors.set(`${module}.bias`, [hidden_size]);
  };
  const [embeddings, head] = tablesOf(config);
  tensors.set(embeddings!, [vocab_size, hidden_size]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const within = `${layout.layers}.${layer}`;
    addNorm(`${within}.${LAYER_NORMS[0]}`);
    for (const { name, shape, hasBias } of layout.linears) {
      tensors.set(`${within}.${name}.weight`, shape);
      if (hasBias) tensors.set(`${within}.${name}.bias`, [shape[0]]);
    }
    addNorm(`${within}.${LAYER_NORMS[1]}`);
  }
  addNorm(layout.norm);
  if (head) tensors.set(head, [vocab_size, hidden_size]);
  return tensors;
}

/**
 * Parts of 4-bit weights, angles and masks that older versions of `transformers` stored, and the second name of a tied
 * head.
 */
export function isExpendable(name: string, config: ModelConfig): boolean {
  const isTiedHead = config.tie_word_embeddings && name === `${layoutOf(config).head}.weight`;
  return isTiedHead || /\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*)$/.test(name) ||
    name.endsWith(".rotary_emb.inv_freq") || /\.attention\.(masked_)?bias$/.test(name);
}

/** Numbers in the whole model. */
export function countParameters(config: ModelConfig): number {
  let total = 0;
  for (const shape of checkpointTensors(config).values()) total += shape.reduce((a, b) => a * b, 1);
  return total;
}
