/** How much arithmetic a pass takes, from a model's shape alone. A multiplication and an addition count as two. */
import type { LlamaConfig } from "./config.ts";
import { LINEAR_NAMES, linearModule, type LinearName, LINEARS, linearShape } from "./tensors.ts";

/** Floating-point operations by part of the model. */
export interface Flops {
  /** Scores, and values weighted by them. */
  readonly attention: number;
  /** Products with q, k, v and o. */
  readonly projections: number;
  /** Products with gate, up and down. */
  readonly ffn: number;
  readonly head: number;
  /** Products with LoRA's factors. */
  readonly lora: number;
}

/** What a pass runs over. */
export interface Work {
  readonly tokens: number;
  /** Pairs of a query and a key that one head works on in one layer, on average over the heads. */
  readonly pairs: number;
  /** LoRA's rank by linear; 0 where it has none. */
  readonly rank?: (module: string) => number;
}

/** What a training step does besides the forward pass. */
export interface TrainingWork extends Work {
  /** Whether a tensor of the checkpoint is trained whole. */
  readonly isTrained: (name: string) => boolean;
  /** Layers run forward again in the backward pass. */
  readonly checkpointing: boolean;
}

/** A training step's arithmetic in the order of its parts. */
export interface StepFlops {
  readonly forward: Flops;
  readonly recompute: Flops;
  readonly backward: Flops;
}

/** Parts of {@linkcode Flops} in the order of reports. */
export const FLOPS_PARTS = ["attention", "projections", "ffn", "head", "lora"] as const;

/**
 * Pairs as papers count them: every query with every key of its group, the future included.
 * @param groupSize all tokens, unless attention is in groups
 */
export function paperPairs(tokens: number, groupSize: number = tokens): number {
  return tokens * Math.min(groupSize, tokens);
}

/** A forward pass. */
export function forwardFlops(config: LlamaConfig, work: Work): Flops {
  const { tokens } = work;
  const products = (inMlp: boolean): number =>
    2 * tokens * sumOver(config, (name) => isMlp(name) === inMlp ? sizeOf(config, name) : 0);
  return {
    attention: attentionProducts(config, work, 2),
    projections: products(false),
    ffn: products(true),
    head: headProduct(config, tokens),
    lora: 2 * tokens * sumOver(config, (name, layer) => {
      const [outputs, inputs] = linearShape(config, name);
      return rankOf(work, layer, name) * (outputs + inputs);
    }),
  };
}

/**
 * A training step as it is computed here: frozen weights pass gradients on and get none, recomputing a layer leaves out
 * its last product, and attention's backward pass makes scores and their gradients twice, once for the queries and once
 * for the keys.
 */
export function trainingFlops(config: LlamaConfig, work: TrainingWork): StepFlops {
  const { tokens, isTrained, checkpointing } = work;
  const forward = forwardFlops(config, work);
  const trained = (inMlp: boolean): number =>
    2 * tokens * sumOver(config, (name, layer) => {
      const counts = isMlp(name) === inMlp && isTrained(`${linearModule(layer, name)}.weight`);
      return counts ? sizeOf(config, name) : 0;
    });
  const headName = config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  const backward: Flops = {
    attention: attentionProducts(config, work, 7),
    projections: forward.projections + trained(false),
    ffn: forward.ffn + trained(true),
    head: headProduct(config, tokens) * (isTrained(headName) ? 2 : 1),
    lora: 2 * tokens * sumOver(config, (name, layer) => {
      const [outputs, inputs] = linearShape(config, name);
      // h again, dA and dx; dB and g.
      return rankOf(work, layer, name) * (3 * inputs + 2 * outputs);
    }),
  };
  return { forward, recompute: checkpointing ? recomputeFlops(config, work, forward) : NONE, backward };
}

/** Sum of all parts. */
export function totalFlops(flops: Flops): number {
  return FLOPS_PARTS.reduce((sum, part) => sum + flops[part], 0);
}

/** Sums by part. */
export function addFlops(...all: readonly Flops[]): Flops {
  const sum = (part: keyof Flops) => all.reduce((total, flops) => total + flops[part], 0);
  return {
    attention: sum("attention"),
    projections: sum("projections"),
    ffn: sum("ffn"),
    head: sum("head"),
    lora: sum("lora"),
  };
}

const NONE: Flops = { attention: 0, projections: 0, ffn: 0, head: 0, lora: 0 };

/** The forward pass of all layers without the product with `down_proj`, and without the head. */
function recomputeFlops(config: LlamaConfig, work: Work, forward: Flops): Flops {
  const { tokens } = work;
  const down = sizeOf(config, "down_proj") * config.num_hidden_layers;
  const [outputs, inputs] = linearShape(config, "down_proj");
  const downLora = sumOver(
    config,
    (name, layer) => name === "down_proj" ? rankOf(work, layer, name) * (outputs + inputs) : 0,
  );
  return {
    ...forward,
    ffn: forward.ffn - 2 * tokens * down,
    head: 0,
    lora: forward.lora - 2 * tokens * downLora,
  };
}

/** So many products of (pairs) by head size in every head of every layer. */
function attentionProducts(config: LlamaConfig, { pairs }: Work, products: number): number {
  const { num_attention_heads: heads, head_dim, num_hidden_layers } = config;
  return 2 * products * pairs * heads * head_dim * num_hidden_layers;
}

function headProduct({ hidden_size, vocab_size }: LlamaConfig, tokens: number): number {
  return 2 * tokens * hidden_size * vocab_size;
}

function sumOver(config: LlamaConfig, value: (name: LinearName, layer: number) => number): number {
  let sum = 0;
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const name of LINEAR_NAMES) sum += value(name, layer);
  }
  return sum;
}

function sizeOf(config: LlamaConfig, name: LinearName): number {
  const [outputs, inputs] = linearShape(config, name);
  return outputs * inputs;
}

function isMlp(name: LinearName): boolean {
  return LINEARS[name] === "mlp";
}

function rankOf({ rank }: Work, layer: number, name: LinearName): number {
  return rank?.(linearModule(layer, name)) ?? 0;
}
