/**
 * Longreach as a library: load, train, evaluate and merge LLaMA, Mistral, Qwen2 and GPT-NeoX models on WebGPU.
 *
 * @example
 * ```ts
 * import { Gpu, openModel } from "./mod.ts";
 *
 * using gpu = await Gpu.open();
 * const { model } = await openModel(gpu, { baseModel: "model", contextSize: 8192, loadIn4bit: true });
 * ```
 *
 * @module
 */
export { EXIT, UserError } from "./errors.ts";
export { DeviceLostError, GpuError, GpuMemoryError } from "./kernels/errors.ts";
export { Gpu, type GpuInfo, type GpuOptions, type Sharing } from "./kernels/gpu.ts";
export { Tensor } from "./kernels/tensor.ts";
export { type ModelConfig, readConfig } from "./model/config.ts";
export {
  type Batch,
  type DeviceBatch,
  freeBatch,
  makeBatch,
  type Sequence,
  uploadBatch,
} from "./model/batch.ts";
export { Decoder, type DecoderOptions } from "./model/decoder.ts";
export { continueAll, generate, generateBatch, type GenerateOptions } from "./model/generate.ts";
export { LanguageModel } from "./model/language_model.ts";
export { type OpenModel, openModel, type OpenOptions } from "./model/open.ts";
export { mergeAdapter } from "./model/merge.ts";
export { Tokenizer } from "./data/tokenizer.ts";
export { evaluatePerplexity, type PerplexityOptions } from "./eval/perplexity.ts";
export { loadTrainArgs, type TrainArgs } from "./train_args/load.ts";
export type { StepMetrics, TrainHooks, TrainInfo, TrainResult } from "./train/hooks.ts";
export { runTraining } from "./train/run.ts";
export { Trainer, type TrainerOptions } from "./train/trainer.ts";
