/** Arithmetic of a pass, from a model's shape alone. A multiplication and an addition count as two. */
import type { ModelConfig } from "./model_config.ts";
import type { LinearSpec } from "./layout.ts";
import { layoutOf, linearsOf, routersOf } from "./tensors.ts";

/** Floating-point operations by part of the model. */
export interface Flops {
  /** Scores, and values weighted by them. */
  readonly attention: number;
  /** Products with q, k, v and o. */
  readonly projections: number;
  /** Products with gate, up and down, of the experts that tokens have, and with routers. */
  readonly ffn: number;
  /** The product with the head. */
  readonly head: number;
  /** Products with LoRA's factors. */
  readonly lora: number;
}

/** Work of a pass. */
export interface Work {
  readonly tokens: number;
  /** Pairs of a query and a key that one head works on in one layer, on average over heads and layers. */
  readonly pairs: number;
  /** LoRA's rank by linear; 0 where it has none. */
  readonly rank?: (module: string) => number;
}

/** Work of a training step besides the forward pass. */
export interface TrainingWork extends Work {
  /** Whether a tensor of the checkpoint is trained whole. */
  readonly isTrained: (name: string) => boolean;
  /** Layers run forward again in the backward pass. */
  readonly checkpointing: boolean;
}

/** A training step's arithmetic in the order of its parts. */
export interface StepFlops {
  /** The forward pass. */
  readonly forward: Flops;
  /** Layers run again in the backward pass. */
  readonly recompute: Flops;
  /** The backward pass. */
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

/** Counts a forward pass. */
export function forwardFlops(config: ModelConfig, work: Work): Flops {
  const { tokens } = work;
  const products = (part: LinearSpec["part"]): number =>
    2 * tokens * sumOver(config, (linear) => linear.part === part ? sizeOf(linear) : 0);
  return {
    attention: attentionProducts(config, work, 2),
    projections: products("attention"),
    ffn: products("mlp"),
    head: headProduct(config, tokens),
    lora: 2 * tokens * sumOver(config, (linear, module) => loraSize(work, linear, module)),
  };
}

/**
 * Counts a training step as it is computed here: frozen weights pass gradients on and get none, recomputing a layer leaves out
 * its last product, and attention's backward pass makes scores and their gradients twice, once for the queries and once
 * for the keys. Products that a norm reads are made again for its gradient.
 */
export function trainingFlops(config: ModelConfig, work: TrainingWork): StepFlops {
  const { tokens, isTrained, checkpointing } = work;
  const forward = forwardFlops(config, work);
  /** Gradients of trained weights, and products made again for a norm. */
  const more = (part: LinearSpec["part"]): number =>
    2 * tokens * sumOver(config, (linear, module) => {
      if (linear.part !== part) return 0;
      return sizeOf(linear) * (Number(isTrained(`${module}.weight`)) + Number(linear.isNormed ?? false));
    });
  const { embeddings, head } = layoutOf(config);
  const headName = `${config.tie_word_embeddings ? embeddings : head}.weight`;
  const backward: Flops = {
    attention: attentionProducts(config, work, 7),
    projections: forward.projections + more("attention"),
    ffn: forward.ffn + more("mlp"),
    head: headProduct(config, tokens) * (isTrained(headName) ? 2 : 1),
    lora: 2 * tokens * sumOver(config, (linear, module) => {
      const [outputs, inputs] = linear.shape;
      // h again, dA and dx; dB and g.
      return rankOf(work, module) * (3 * inputs + 2 * outputs) * shareOf(linear) +
        (linear.isNormed ? loraSize(work, linear, module) : 0);
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

/** Counts the forward pass of all layers without the products that no gradient needs, and without the head. */
function recomputeFlops(config: ModelConfig, work: Work, forward: Flops): Flops {
  const leftOut = (size: (linear: LinearSpec, module: string) => number): number =>
    2 * work.tokens * sumOver(config, (linear, module) => linear.isRecomputed ? 0 : size(linear, module));
  return {
    attention: forward.attention,
    projections: forward.projections - leftOut((linear) => linear.part === "attention" ? sizeOf(linear) : 0),
    ffn: forward.ffn - leftOut((linear) => linear.part === "mlp" ? sizeOf(linear) : 0),
    head: 0,
    lora: forward.lora - leftOut((linear, module) => loraSize(work, linear, module)),
  };
}

/** So many products of (pairs) by head size in every head of every layer. */
function attentionProducts(config: ModelConfig, { pairs }: Work, products: number): number {
  const { num_attention_heads: heads, head_dim, num_hidden_layers } = config;
  return 2 * products * pairs * heads * head_dim * num_hidden_layers;
}

function headProduct({ hidden_size, vocab_size }: ModelConfig, tokens: number): number {
  return 2 * tokens * hidden_size * vocab_size;
}

/** Sums over the linears of all layers, and over the routers. */
function sumOver(config: ModelConfig, value: (linear: LinearSpec, module: string) => number): number {
  let sum = 0;
  for (const [module, linear] of linearsOf(config)) sum += value(linear, module);
  for (const [module, { shape }] of routersOf(config)) {
    sum += value(
      { kind: "linear", name: module, part: "mlp", shape, hasBias: false, isRecomputed: true },
      module,
    );
  }
  return sum;
}

/** Multiply-adds of a token, on average over tokens. */
function sizeOf(linear: LinearSpec): number {
  const [outputs, inputs] = linear.shape;
  return outputs * inputs * shareOf(linear);
}

/** Share of the tokens that go through a linear. */
function shareOf({ expert }: LinearSpec): number {
  return expert ? expert.perToken / expert.experts : 1;
}

/** Multiply-adds of a token with a linear's LoRA factors, on average over tokens. */
function loraSize(work: Work, linear: LinearSpec, module: string): number {
  const [outputs, inputs] = linear.shape;
  return rankOf(work, module) * (outputs + inputs) * shareOf(linear);
}

function rankOf({ rank }: Work, module: string): number {
  return rank?.(module) ?? 0;
}
