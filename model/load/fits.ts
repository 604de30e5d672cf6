/** Whether `config.json` and weights are of one model, and of a size that can be. */
import { isBnb4 } from "../../checkpoint/bitsandbytes.ts";
import { openWeightsIfAny, type WeightReader } from "../../checkpoint/weights.ts";
import { UserError } from "../../errors.ts";
import { MOST_LAYERS } from "../checked.ts";
import type { ModelConfig } from "../model_config.ts";
import { underNamesOf } from "./model_weights.ts";
import { checkpointTensors, countParameters, isExpendable, layoutOf } from "../tensors.ts";

/** Several times what any published model has: what says more is damaged, or made to take memory and time. */
export const SIZE_LIMITS = {
  num_hidden_layers: MOST_LAYERS,
  vocab_size: 2 ** 19,
  hidden_size: 2 ** 16,
  intermediate_size: 2 ** 17,
  "num_attention_heads x head_dim": 2 ** 17,
  "max_position_embeddings, scaling included,": 2 ** 31 - 1,
  "the number of parameters": 2 ** 42,
} as const;

/** Names a size of the model beyond {@linkcode SIZE_LIMITS}; undefined if none is. */
export function problemOfSizes(config: ModelConfig, contextLength: number): string | undefined {
  const sizes = {
    ...config,
    "num_attention_heads x head_dim": config.num_attention_heads * config.head_dim,
    "max_position_embeddings, scaling included,": contextLength,
    // Last: it counts layer by layer.
    get "the number of parameters"() {
      return countParameters(config);
    },
  };
  for (const [name, most] of Object.entries(SIZE_LIMITS)) {
    const size = sizes[name as keyof typeof SIZE_LIMITS];
    if (!(size <= most)) return `${name} is ${size}, at most ${most} are allowed`;
  }
  return undefined;
}

/**
 * Checks that the weights in a model's folder, if it has any, are those that its config names: by the headers of the
 * files alone, before anything is built.
 * @throws {UserError} naming the tensor that is missing, of another shape, or no part of the model
 */
export async function requireWeights(folder: string, config: ModelConfig): Promise<void> {
  const opened = await openWeightsIfAny(folder);
  if (opened === undefined) return;
  const weights = underNamesOf(config, opened, folder);
  try {
    const expected = checkpointTensors(config);
    const head = `${layoutOf(config).head}.weight`;
    for (const [name, shape] of expected) {
      // An adapter may bring it.
      if (name === head && !weights.has(head)) continue;
      const { shape: stored, byteLength } = weights.info(name);
      const elements = shape.reduce((all, axis) => all * axis, 1);
      const isPacked = shape.length === 2 && isBnb4(weights, name) && byteLength === Math.ceil(elements / 2);
      if (!isPacked) checkShape(name, stored, shape);
    }
    requireNoMore(weights, config, expected);
  } finally {
    weights.close();
  }
}

/**
 * @throws {UserError} if the checkpoint's layers hold what config.json does not name, such as further layers or biases:
 *   the model would run without them, and wrongly
 */
export function requireNoMore(
  weights: WeightReader,
  config: ModelConfig,
  expected: ReadonlyMap<string, readonly number[]>,
): void {
  const { layers } = layoutOf(config);
  for (const name of weights.names()) {
    if (!name.startsWith(`${layers}.`) || expected.has(name) || isExpendable(name, config)) continue;
    throw new UserError(
      `Cannot load the model: its weights hold "${name}", which config.json does not name ` +
        `(num_hidden_layers ${config.num_hidden_layers}). Weights and config.json are not of one model`,
    );
  }
}

/** @throws {UserError} if a tensor is of another shape than the config makes it */
export function checkShape(name: string, actual: readonly number[], expected: readonly number[]): void {
  if (actual.length === expected.length && actual.every((axis, i) => axis === expected[i])) return;
  throw new UserError(
    `Cannot load "${name}": it is [${actual}], but config.json makes it [${expected}]. ` +
      `Weights and config.json are not of one model`,
  );
}
