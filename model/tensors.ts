/** Names and shapes of a checkpoint's tensors. */
import { architectureOf } from "./architectures.ts";
import type { Layout, LinearSpec, ModuleSpec, NormSpec, RouterSpec } from "./layout.ts";
import type { ModelConfig } from "./model_config.ts";

/** Gives the module names of the config's architecture. */
export function layoutOf(config: ModelConfig): Layout {
  return architectureOf(config).layout(config);
}

/** Gives the modules of a layer, in the order in which they are loaded. */
export function modulesOf(layout: Layout, layer: number): readonly ModuleSpec[] {
  return layout.modulesOf?.(layer) ?? layout.modules;
}

/** Every linear of every layer in the order of the checkpoint, by its module, such as `model.layers.3.self_attn.q_proj`. */
export function linearsOf(config: ModelConfig): Map<string, LinearSpec> {
  const layout = layoutOf(config);
  const all = new Map<string, LinearSpec>();
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const module of modulesOf(layout, layer)) {
      if (module.kind === "linear") all.set(`${layout.layers}.${layer}.${module.name}`, module);
    }
  }
  return all;
}

/** Every router of every layer, by its module. */
export function routersOf(config: ModelConfig): Map<string, RouterSpec> {
  const layout = layoutOf(config);
  const all = new Map<string, RouterSpec>();
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const module of modulesOf(layout, layer)) {
      if (module.kind === "router") all.set(`${layout.layers}.${layer}.${module.name}`, module);
    }
  }
  return all;
}

/** k: experts that a token has in layers with experts; 0 where no layer has any. */
export function expertsPerToken(config: ModelConfig): number {
  for (const { expert } of linearsOf(config).values()) {
    if (expert) return expert.perToken;
  }
  return 0;
}

/** Gives the weights of all norms by name, each with the value of its elements in a model that was never trained. */
export function normWeights(config: ModelConfig): Map<string, number> {
  const layout = layoutOf(config);
  const weights = new Map<string, number>();
  const add = (name: string, { offset = 0 }: NormSpec) => weights.set(`${name}.weight`, 1 - offset);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const spec of modulesOf(layout, layer)) {
      if (spec.kind === "norm") add(`${layout.layers}.${layer}.${spec.name}`, spec);
    }
  }
  add(layout.norm.name, layout.norm);
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
  const add = (module: string, spec: ModuleSpec) => {
    const shape = spec.kind === "norm" ? [spec.width] : spec.shape;
    tensors.set(`${module}.weight`, shape);
    if (spec.hasBias) tensors.set(`${module}.bias`, [shape[0]!]);
  };
  const [embeddings, head] = tablesOf(config);
  tensors.set(embeddings!, [vocab_size, hidden_size]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const spec of modulesOf(layout, layer)) add(`${layout.layers}.${layer}.${spec.name}`, spec);
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
