import { type Adapter, readAdapter } from "../checkpoint/peft.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Format } from "../kernels/wgsl.ts";
import { applyAdapter } from "./adapter.ts";
import { extendContext, type ModelConfig, readConfig } from "./config.ts";
import type { LanguageModel } from "./language_model.ts";
import { loadModel, type LoadOptions } from "./load.ts";
import { openModelWeights } from "./model_weights.ts";
import { adaptBase, grownWeights } from "./vocabulary.ts";

export interface OpenOptions {
  /** Folder of the base model. */
  readonly baseModel: string;
  /** Folder of a PEFT adapter to apply. */
  readonly peftModel?: string | undefined;
  /** Context the positions are scaled for, in tokens; the model's own unless longer. Unused with `config`. */
  readonly contextSize?: number;
  /** The base model's configuration with its positions already settled, in place of its own and `contextSize`. */
  readonly config?: ModelConfig;
  readonly loadIn4bit: boolean;
  /** How activations are stored; f32 unless given. */
  readonly format?: Format;
  readonly onProgress?: LoadOptions["onProgress"];
}

/** A model to run, not to train. */
export interface OpenModel {
  readonly model: LanguageModel;
  /** With the context extended. */
  readonly config: ModelConfig;
  readonly adapter: Adapter | undefined;
  /** What the user should know about the adapter. */
  readonly notes: readonly string[];
}

/**
 * Loads a base model, and an adapter onto it, for evaluation.
 * @throws {UserError} if a file is missing or damaged, or the parts are not of one model
 */
export async function openModel(gpu: Gpu, options: OpenOptions): Promise<OpenModel> {
  const { baseModel, peftModel, contextSize = 0, loadIn4bit, format = "f32", onProgress } = options;
  const base = options.config ?? extendContext(await readConfig(baseModel), contextSize);
  const { config, adapter, notes } = adaptBase(
    base,
    peftModel === undefined ? undefined : await readAdapter(peftModel),
  );
  const weights = grownWeights(await openModelWeights(baseModel, base), config, base);
  try {
    const model = await loadModel(gpu, weights, {
      config,
      format,
      loadIn4bit,
      doubleQuant: true,
      ...(adapter ? { replacements: adapter.extra } : {}),
      ...(onProgress ? { onProgress } : {}),
    });
    if (adapter) applyAdapter(model, adapter, { isTrained: false });
    return { model, config, adapter, notes };
  } finally {
    weights.close();
  }
}
