import { type Adapter, readAdapter } from "../../checkpoint/peft.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import type { Quantisation } from "../../kernels/quantisation.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { applyAdapter } from "../lora.ts";
import { readConfig } from "../config.ts";
import type { ModelConfig } from "../model_config.ts";
import { settleContext } from "../context.ts";
import { otherBaseNote } from "./fingerprint.ts";
import type { LanguageModel } from "../language_model.ts";
import { loadModel } from "./load.ts";
import { openModelWeights } from "./model_weights.ts";
import { adaptBase, grownWeights } from "./vocabulary.ts";

/** Which model, and how it is held. */
export interface OpenOptions {
  /** Folder of the base model. */
  readonly baseModel: string;
  /** Folder of a PEFT adapter to apply. */
  readonly peftModel?: string | null | undefined;
  /**
   * Context the positions are scaled for, in tokens. Unless given: what the adapter was trained for, else the model's own.
   * Unused with `config`.
   */
  readonly contextSize?: number | null | undefined;
  /** The base model's configuration with its positions already settled, in place of its own and `contextSize`. */
  readonly config?: ModelConfig;
  /** Quantisation of the base's linears while loading; "none" unless given. */
  readonly quantisation?: Quantisation;
  /** Format of activations; f32 unless given. */
  readonly format?: Format;
  /** Told of every tensor loaded: its name, how many are done, of how many. */
  readonly onProgress?: (tensor: string, done: number, total: number) => void;
}

/** A model to run, not to train. */
export interface OpenModel {
  /** On the device, the adapter applied. */
  readonly model: LanguageModel;
  /** With the context extended. */
  readonly config: ModelConfig;
  /** The adapter as it was read, where there is one. */
  readonly adapter: Adapter | undefined;
  /** Notes for the user on positions and adapter, a line each. */
  readonly notes: readonly string[];
}

/**
 * Loads a base model, and an adapter onto it, to evaluate it or to write with it.
 * @throws {UserError} if a file is missing or damaged, or the parts are not of one model
 */
export async function openModel(gpu: Gpu, options: OpenOptions): Promise<OpenModel> {
  const { baseModel, quantisation = "none", format = "f32", onProgress } = options;
  const peftModel = options.peftModel ?? undefined;
  const base = options.config ?? await readConfig(baseModel);
  const settled = options.config ? { config: base, notes: [] } : await settle(base, options);
  const { config, adapter, notes } = adaptBase(
    settled.config,
    peftModel === undefined ? undefined : await readAdapter(peftModel),
  );
  const weights = grownWeights(await openModelWeights(baseModel, settled.config), config, settled.config);
  try {
    const model = await loadModel(gpu, weights, {
      config,
      format,
      quantisation,
      ...(adapter ? { replacements: adapter.extra } : {}),
      ...(onProgress ? { onProgress } : {}),
    });
    if (adapter) applyAdapter(model, adapter, { isTrained: false });
    return { model, config, adapter, notes: [...settled.notes, ...notes] };
  } finally {
    weights.close();
  }
}

/** Positions as they are asked for or the adapter was trained with, and what is to be said of them and of its base. */
async function settle(
  base: ModelConfig,
  { baseModel, peftModel, contextSize }: OpenOptions,
): Promise<Pick<OpenModel, "config" | "notes">> {
  const { config, notes } = await settleContext(base, { peftModel, contextSize });
  const otherBase = peftModel ? await otherBaseNote(peftModel, baseModel) : undefined;
  return { config, notes: otherBase === undefined ? notes : [...notes, otherBase] };
}
