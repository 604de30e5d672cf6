import { type FloatDtype, fromF32, toF32 } from "../../checkpoint/dtype.ts";
import type { WeightReader } from "../../checkpoint/weights.ts";
import { UserError } from "../../errors.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { makeBatch, type Sequence, uploadBatch } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import { loadModel, type LoadOptions } from "../../model/load/load.ts";
import { integers } from "../support/random.ts";

/** A grouped-query model of two layers, small enough for anything. */
export function smallConfig(changes: Record<string, unknown> = {}): ModelConfig {
  return parseConfig({
    model_type: "llama",
    vocab_size: 50,
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 64,
    ...changes,
  }, "config.json");
}

/** What is different about a tensor of {@linkcode changedWeights}. */
export interface Change {
  readonly name: string;
  readonly dtype?: FloatDtype;
  readonly shape?: readonly number[];
  readonly values?: (values: Float32Array) => void;
  readonly isMissing?: boolean;
}

/** Random weights of a model in memory, some of them changed. */
export function changedWeights(
  config: ModelConfig,
  { seed = 1, dtype = "F32" as FloatDtype, changes = [] as readonly Change[] } = {},
): WeightReader {
  const fresh = freshWeights(config, seed);
  const changeOf = (name: string) => changes.find((change) => change.name === name);
  const has = (name: string) => fresh.has(name) && !changeOf(name)?.isMissing;
  const info = (name: string) => {
    if (!has(name)) throw new UserError(`no tensor "${name}"`);
    const { shape } = fresh.info(name);
    const change = changeOf(name);
    const kept = change?.shape ?? shape;
    const stored = change?.dtype ?? dtype;
    const size = kept.reduce((product, axis) => product * axis, 1);
    return { name, dtype: stored, shape: kept, byteLength: size * (stored === "F32" ? 4 : 2) };
  };
  const read = async (name: string) => {
    const change = changeOf(name);
    const values = toF32(await fresh.read(name), "F32");
    change?.values?.(values);
    return fromF32(values, info(name).dtype as FloatDtype);
  };
  return {
    names: () => [...fresh.names()].filter(has),
    has,
    info,
    read,
    async readInto(name, from, into) {
      into.set((await read(name)).subarray(from, from + into.length));
    },
    close() {},
  };
}

/** Loads in f32, with nothing trained unless told so. */
export function load(
  gpu: Gpu,
  config: ModelConfig,
  weights: WeightReader = changedWeights(config),
  options: Partial<LoadOptions> = {},
): Promise<LanguageModel> {
  return loadModel(gpu, weights, { config, format: "f32", quantisation: "none", ...options });
}

/** `length` random tokens of the model. */
export function sequence({ vocab_size }: ModelConfig, length: number, seed = 7): Sequence {
  return { inputIds: integers(seed, length, vocab_size) };
}

/** Logits (rows, V) of sequences. */
export async function logitsOf(model: LanguageModel, sequences: readonly Sequence[]): Promise<Float32Array> {
  return await model.logits(uploadBatch(model.gpu, makeBatch(sequences)));
}
