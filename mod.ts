/**
 * Longreach as a library: extend the context of LLaMA, Mistral, Qwen2 and GPT-NeoX models on WebGPU, measure, merge,
 * convert and write with them. It prints nothing and asks nothing; progress comes through hooks.
 *
 * Settings of a training run have the names that YAML files and `docs/options.md` have, keys of `config.json` and of adapters
 * those of their files; every other option is in camelCase, and optional where the command line has a default.
 *
 * @example
 * ```ts
 * import { evaluatePerplexity, loadTrainArgs, runTraining } from "./mod.ts";
 *
 * const { args } = await loadTrainArgs(null, {
 *   model_name_or_path: "models/base",
 *   train_file: "data/long.jsonl",
 *   model_max_length: 8192,
 *   max_steps: 100,
 *   output_dir: "output/long",
 * });
 * const { outputDir } = await runTraining(args, { onStep: ({ step, loss }) => console.log(step, loss) });
 * const { tokenPerplexity } = await evaluatePerplexity({
 *   baseModel: "models/base",
 *   peftModel: outputDir,
 *   dataPath: "data/held-out.txt",
 *   seqLen: 8192,
 * });
 * ```
 *
 * @module
 */

// Errors.
export { type ErrorKind, UserError } from "./errors.ts";
export { DeviceLostError, GpuError, GpuMemoryError } from "./kernels/errors.ts";
export type { Quantisation } from "./kernels/quantisation.ts";

// Training: settings, the run, its plan.
export type { OptionName, OptionValues } from "./train_args/schema.ts";
export {
  type LoadedTrainArgs,
  loadTrainArgs,
  type TrainArgs,
  type TrainSettings,
} from "./train_args/load.ts";
export { runTraining } from "./train/run.ts";
export type { StepMetrics, TrainHooks, TrainInfo, TrainResult } from "./train/hooks.ts";
export type { Communicator, Message as RankMessage } from "./distributed/communicator.ts";
export { type Job, joinJob } from "./distributed/mpi.ts";
export type { WireFormat } from "./train/gradient_sum.ts";
export type { DataPreview, PreviewPart } from "./data/preview.ts";
export { type Plan, type PlanOptions, planTraining, requireFit } from "./train/plan/plan.ts";
export {
  type PlanDevice,
  planDevice,
  type RankShare,
  type StepCost,
  type StepOptions,
  TYPICAL_DEVICE,
} from "./train/plan/step_cost.ts";
export type { Network, Ranks, Scaling } from "./train/plan/scaling.ts";
export type { Traffic } from "./distributed/dry_communicator.ts";
export type { Placement } from "./train/options.ts";
export type { Flops, StepFlops } from "./model/flops.ts";
export { measureThroughput, type Throughput } from "./train/plan/throughput.ts";
export { longestContext, type LongestOptions } from "./train/plan/longest_context.ts";
export type { Suggestion } from "./train/plan/suggestions.ts";

// Evaluation, merging, other formats.
export {
  evaluatePerplexity,
  type PerplexityOptions,
  type PerplexityResult,
  type PositionScore,
  scoreWindows,
  type WindowOptions,
  type WindowScores,
} from "./eval/perplexity.ts";
export type { LoadedModel, MeasuredModel } from "./eval/measured_model.ts";
export { mergeAdapter, type MergeCheck, type MergeOptions, type MergeResult } from "./export/merge.ts";
export { convertToGguf, type GgufOptions } from "./export/gguf.ts";
export { type Bnb4Options, convertToBnb4 } from "./export/bnb4.ts";
export {
  convertToSafetensors,
  type SafetensorsHooks,
  type SafetensorsOptions,
} from "./checkpoint/to_safetensors.ts";
export type { WorkHooks } from "./model/hooks.ts";

// The hub.
export { type DownloadOptions, snapshotDownload } from "./hub/snapshot_download.ts";
export type { HubReference } from "./hub/reference.ts";
export type { SnapshotHooks } from "./hub/hub.ts";
export { HUB_VARIABLES, type HubSettings, hubSettings } from "./hub/settings.ts";

// Data: tokenizer, chat templates, data sets.
export { type EncodeOptions, Tokenizer } from "./data/tokenizer.ts";
export type { TokenizerConfig, TokenizerJson } from "./data/tokenizer_json.ts";
export { chatTemplateOf, NO_TARGET, type TemplateChoice } from "./data/encode.ts";
export {
  type ChatTemplate,
  type Message,
  type Rendering,
  type Role,
  type Segment,
  TEMPLATE_NAMES,
  type TemplateName,
} from "./data/templates.ts";
export { type Dataset, type DatasetOptions, type DatasetReport, loadDataset } from "./data/dataset.ts";
export type { Sample } from "./data/sample.ts";
export type { TokenDtype } from "./data/bin.ts";
export type { RowCache } from "./data/row_cache.ts";
export { type DataSource, parseSources, type SourceOptions } from "./data/sources.ts";
export { tokenizeFiles, type TokenizeOptions, type TokenizeReport } from "./data/tokenize.ts";

// Models: loading, writing text, one step of training, saving.
export { type DeviceLimits, Gpu, type GpuInfo, type GpuOptions, type Sharing } from "./kernels/gpu.ts";
export { openGpu } from "./kernels/open.ts";
export type {
  Choosing,
  FindRefused,
  Refused,
  Risk,
  Verdict,
  VerdictStore,
  Wrong,
} from "./kernels/refusal.ts";
export { type Dtype, Tensor } from "./kernels/tensor.ts";
export type { KernelTiming } from "./kernels/profiler.ts";
export { type MemoryUse, type Purpose, PURPOSES } from "./kernels/pool.ts";
export type { MatrixShape, WebGpu } from "./kernels/device.ts";
export type { DeviceMemory, NamedShape } from "./kernels/memory.ts";
export type { Reading, TensorValues } from "./kernels/transfers.ts";
export type { FindTuning, Tuning } from "./kernels/tuning.ts";
export type { Format } from "./kernels/wgsl.ts";
export type { AttentionRule } from "./kernels/attention/map.ts";
export { contextLength } from "./model/positions.ts";
export { readConfig } from "./model/config.ts";
export type { LayerAttention, ModelConfig, Rope } from "./model/model_config.ts";
export type { RopeScaling } from "./model/rope_scaling.ts";
export { type OpenModel, openModel, type OpenOptions } from "./model/load/open.ts";
export type { Parameter } from "./model/parameter.ts";
export { LanguageModel, type Predictions } from "./model/language_model.ts";
export { continueAll, generate, generateBatch, type GenerateOptions } from "./model/generate.ts";
export type { Logprob, TokenLogprob } from "./model/logprobs.ts";
export { Decoder, type DecoderOptions } from "./model/decoder.ts";
export type { Sampling } from "./kernels/sample/sample.ts";
export type { CacheFormat } from "./kernels/cache_attention/cache_rows.ts";
export { type Answer, type AnswerOptions, Engine, type EngineOptions } from "./chat/engine.ts";
export type { Sinks } from "./chat/cache.ts";
export type { AnswerLogprob, TextLogprob } from "./chat/text_logprobs.ts";
export {
  type Batch,
  type DeviceBatch,
  freeBatch,
  makeBatch,
  type Sequence,
  uploadBatch,
} from "./model/batch.ts";
export {
  type StepResult,
  targetsOf,
  Trainer,
  type TrainerOptions,
  type TrainerState,
} from "./train/trainer.ts";
export type { OptimizerStateForm } from "./train/optimizer_states.ts";
export { addLora, exportAdapter } from "./model/lora.ts";
export {
  type Adapter,
  type AdapterConfig,
  adapterConfig,
  type AdapterOptions,
  type ExtraTensor,
  type LoraPair,
  readAdapter,
  type TensorF32,
  writeAdapter,
} from "./checkpoint/peft.ts";
export type { ScaleRules, TargetRules } from "./checkpoint/peft_targets.ts";
export { saveFolderAtomic } from "./checkpoint/store.ts";
export type { StoreOptions, WriteFolder } from "./checkpoint/atomic.ts";
export type { FileHandle, Files, FolderEntry } from "./checkpoint/files.ts";
export { type ModelFolder, writeModel, type WrittenModel } from "./checkpoint/save_model.ts";
export type { TensorSource } from "./checkpoint/safetensors.ts";
export { type Dtype as StoredDtype, DTYPE_BYTES, type FloatDtype } from "./checkpoint/dtype.ts";
export type { DtypeName } from "./model/number_formats.ts";
export { type NamedTensor, tensorSources } from "./model/read_back.ts";
