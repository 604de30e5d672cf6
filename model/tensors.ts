/** Names and shapes of a checkpoint's tensors. */
import { architectureOf } from "./architectures.ts";
import type { Layout, LinearSpec, NormSpec } from "./layout.ts";
import type { ModelConfig } from "./model_config.ts";

/** Gives the module names of the config's architecture. */
export function layoutOf(config: ModelConfig): Layout {
  return architectureOf(config).layout(config);
}

/** Every linear of every layer in the order of the checkpoint, by its module, such as `model.layers.3.self_attn.q_proj`. */
export function linearsOf(config: ModelConfig): Map<string, LinearSpec> {
  const { layers, modules } = layoutOf(config);
  const linears = modules.filter((module) => module.kind === "linear");
  const all = new Map<string, LinearSpec>();
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const linear of linears) all.set(`${layers}.${layer}.${linear.name}`, linear);
  }
  return all;
}

/** Gives the weights of all norms by name, each with the value of its elements in a model that was never trained. */
export function normWeights(config: ModelConfig): Map<string, number> {
  const { layers, modules, norm } = layoutOf(config);
  const weights = new Map<string, number>();
  const add = (name: string, { offset = 0 }: NormSpec) => weights.set(`${name}.weight`, 1 - offset);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const spec of modules) {
      if (spec.kind === "norm") add(`${layers}.${layer}.${spec.name}`, spec);
    }
  }
  add(norm.name, norm);
  return weights;
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
  const add = (module: string, spec: LinearSpec | NormSpec) => {
    const shape = spec.kind === "norm" ? [spec.width] : spec.shape;
    tensors.set(`${module}.weight`, shape);
    if (spec.hasBias) tensors.set(`${module}.bias`, [shape[0]!]);
  };
  const [embeddings, head] = tablesOf(config);
  tensors.set(embeddings!, [vocab_size, hidden_size]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const spec of layout.modules) add(`${layout.layers}.${layer}.${spec.name}`, spec);
  }
  add(layout.norm.name, layout.norm);
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
