/** A model whose losses are measured: its positions settled first, its weights loaded once the data is known to fit. */
import { Tokenizer } from "../data/tokenizer.ts";
import { describePlaces, tokenizerPlaces } from "../data/tokenizer_files.ts";
import { readExtraShapes } from "../checkpoint/peft.ts";
import type { Communicator } from "../distributed/communicator.ts";
import { UserError } from "../errors.ts";
import type { Gpu, GpuOptions } from "../kernels/gpu.ts";
import { openGpu } from "../kernels/open.ts";
import type { Quantisation } from "../kernels/quantisation.ts";
import { Tensor } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";
import { readConfig } from "../model/config.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { contextLength } from "../model/positions.ts";
import type { RopeScaling } from "../model/rope_scaling.ts";
import { settleContext } from "../model/context.ts";
import type { WorkHooks } from "../model/hooks.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { otherBaseNote } from "../model/load/fingerprint.ts";
import { tableNotes } from "../model/load/model_weights.ts";
import { openModel } from "../model/load/open.ts";
import { withVocabularyOf } from "../model/load/vocabulary.ts";

/** The model to measure, and its precision. */
export interface MeasuredModel {
  /** Folder of the model. */
  readonly baseModel: string;
  /** Folder of an adapter on top of it. */
  readonly peftModel?: string | null | undefined;
  /**
   * Context the positions are scaled for, in tokens. Unless given: the model's own without an adapter; with one, what it
   * was trained for where its train_args.yaml says it, else the length of a window.
   */
  readonly contextSize?: number | null | undefined;
  /** Quantisation of the base's linears while loading; "none" unless given. */
  readonly quantisation?: Quantisation;
  /** Precision of activations, fp32 unless given; sums are f32 in any case. */
  readonly dtype?: "fp32" | "bf16" | "fp16";
  /** Options of the device; its defaults unless given. */
  readonly gpuOptions?: GpuOptions;
  /** The ranks that share the work, each by a call of its own, and all get the result; one unless given. */
  readonly ranks?: Communicator | undefined;
}

/** The model that was measured. */
export interface LoadedModel {
  /** Folder of the base model. */
  readonly baseModel: string;
  /** Folder of the adapter, if there is one. */
  readonly peftModel: string | null;
  /** Precision of activations. */
  readonly dtype: "fp32" | "bf16" | "fp16";
  /** Origin of the linears' 4 bits; "no" where they have more. */
  readonly quantized: "no" | "while loading" | "by the checkpoint";
  /** Tokens that the positions in force are made for. */
  readonly contextSize: number;
  /** Scaling of the positions in force. */
  readonly ropeScaling: RopeScaling | null;
  /** RoPE base in force. */
  readonly ropeTheta: number;
}

/** A model whose configuration is known, and nothing else loaded. */
export interface SettledModel {
  /** Tokens that the model has, those that its adapter adds included. */
  readonly vocabSize: number;
  /** Tokens that its positions are made for. */
  readonly contextSize: number;
  /** Reads the tokenizer: the adapter's where it has one, which is told. */
  loadTokenizer(hooks: WorkHooks): Promise<Tokenizer>;
  /** Loads the weights, and tells what the user should know about positions and adapter. */
  open(hooks: WorkHooks): Promise<OpenedModel>;
}

/** A model on its device. */
export interface OpenedModel extends Disposable {
  readonly model: LanguageModel;
  readonly gpu: Gpu;
  readonly loaded: LoadedModel;
}

const FORMATS: Readonly<Record<LoadedModel["dtype"], Format>> = {
  fp32: "f32",
  bf16: "bf16",
  fp16: "f16",
};

/**
 * Settles a model's positions for windows of `seqLen` tokens.
 * @throws {UserError} if its configuration or the adapter's is missing or damaged
 */
export async function settleModel(options: MeasuredModel, seqLen: number): Promise<SettledModel> {
  const { baseModel, dtype = "fp32", quantisation = "none" } = options;
  const peftModel = options.peftModel ?? null;
  const base = await readConfig(baseModel);
  const { config, notes } = await settleContext(base, {
    peftModel,
    contextSize: options.contextSize,
    otherwise: peftModel === null ? undefined : seqLen,
  });
  const extra = peftModel === null ? undefined : await readExtraShapes(peftModel);
  return {
    vocabSize: withVocabularyOf(config, extra).vocab_size,
    contextSize: contextLength(config),

    async loadTokenizer(hooks) {
      const places = peftModel === null ? undefined : await tokenizerPlaces(baseModel, peftModel);
      const note = places && describePlaces(places, peftModel!);
      if (note) hooks.note?.(note);
      return await Tokenizer.load(baseModel, peftModel ?? undefined);
    },

    async open(hooks) {
      const otherBase = peftModel === null ? undefined : await otherBaseNote(peftModel, baseModel);
      if (otherBase !== undefined) hooks.note?.(otherBase);
      [...notes, ...await tableNotes(baseModel, base)].forEach((line) => hooks.note?.(line));
      const longest = contextLength(config);
      const own = contextLength(base);
      if (peftModel === null && longest !== own) {
        hooks.note?.(
          `Positions are changed for ${longest} tokens, as context_size asks; the model is made for ${own}: ` +
            `leave context_size out to measure it as it is`,
        );
      }
      if (seqLen > longest && config.rope_scaling?.type !== "dynamic") {
        hooks.note?.(
          `seq_len ${seqLen} is longer than the ${longest} tokens that positions are made for, and they stay so: ` +
            `pass context_size ${seqLen} for positions scaled to it, or lower seq_len`,
        );
      }
      const gpu = await openGpu(options.gpuOptions);
      try {
        const { model, notes: ofAdapter } = await openModel(gpu, {
          baseModel,
          ...(peftModel === null ? {} : { peftModel }),
          config,
          quantisation,
          format: FORMATS[dtype],
          onProgress: (tensor, done, total) => hooks.onLoad?.(done, total, tensor),
        });
        ofAdapter.forEach((line) => hooks.note?.(line));
        const loaded = {
          baseModel,
          peftModel,
          dtype,
          quantized: whenQuantised(model, config, quantisation),
          contextSize: longest,
          ropeScaling: config.rope_scaling,
          ropeTheta: config.rope_theta,
        };
        return { model, gpu, loaded, [Symbol.dispose]: () => gpu.close() };
      } catch (error) {
        gpu.close();
        throw error;
      }
    },
  };
}

function whenQuantised(
  model: LanguageModel,
  { raw }: ModelConfig,
  quantisation: Quantisation,
): LoadedModel["quantized"] {
  if (model.linears().every(({ weight }) => weight instanceof Tensor)) return "no";
  return quantisation !== "none" && raw.quantization_config === undefined
    ? "while loading"
    : "by the checkpoint";
}

/** Makes the error for a loss that is no number. */
export function notFinite(where: string, model: LanguageModel): UserError {
  return new UserError(
    `Cannot measure perplexity: the loss of ${where} is not finite. ` +
      (model.parts.format === "f16"
        ? "The weights are damaged, or their values too large for fp16: use --dtype fp32 or bf16"
        : "The weights, or the adapter's, are damaged or were saved from a diverged run: use another copy"),
  );
}
