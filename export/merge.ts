/** An adapter merged into its base model, and the proof that both compute the same. */
import type { FloatDtype } from "../checkpoint/dtype.ts";
import { roomNote } from "../checkpoint/free_room.ts";
import { readAdapter } from "../checkpoint/peft.ts";
import { PROCESSOR_FILES, writeModel, type WrittenModel } from "../checkpoint/save_model.ts";
import { saveFolderAtomic } from "../checkpoint/store.ts";
import { Random } from "../data/random.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { describePlaces, tokenizerPlaces } from "../data/tokenizer_files.ts";
import { UserError } from "../errors.ts";
import { GpuMemoryError } from "../kernels/errors.ts";
import type { GpuOptions } from "../kernels/gpu.ts";
import { openGpu } from "../kernels/open.ts";
import type { Quantisation } from "../kernels/quantisation.ts";
import { makeBatch } from "../model/batch.ts";
import { adaptBase, grownWeights } from "../model/load/vocabulary.ts";
import { contextLength } from "../model/positions.ts";
import { readConfig } from "../model/config.ts";
import type { ModelConfig } from "../model/model_config.ts";
import type { RopeScaling } from "../model/rope_scaling.ts";
import { configJson } from "../model/config_json.ts";
import { settleContext } from "../model/context.ts";
import { otherBaseNote } from "../model/load/fingerprint.ts";
import type { WorkHooks } from "../model/hooks.ts";
import { writeCard } from "./local_card.ts";
import { mergedTensors, type MergePlan, planMerge } from "./merged_tensors.ts";
import { namesInFiles, openModelWeights, tableNotes } from "../model/load/model_weights.ts";
import { type DtypeName, torchDtype, torchDtypeOf } from "../model/number_formats.ts";
import { openModel, type OpenOptions } from "../model/load/open.ts";
import { textAloneNotes, wrapperJson } from "../model/wrapper.ts";

/** Options of {@linkcode mergeAdapter}. */
export interface MergeOptions {
  /** Folder of the base model. */
  readonly baseModel: string;
  /** Folder of the adapter. */
  readonly peftModel: string;
  /** Tokens that the merged model's positions are made for. Unless given: the adapter's, else the base's own. */
  readonly contextSize?: number | null | undefined;
  /** Folder to make; it must not exist or be empty. */
  readonly savePath: string;
  /** Number format of every tensor; `keep` (unless given): as the base has it, and `torch_dtype` for what is in 4 bits. */
  readonly dtype?: "keep" | DtypeName;
  /** Largest weight file in bytes; 5 GB unless given. */
  readonly maxShardSize?: number;
  /** Merge onto the base as training saw it: its linears quantised to this and back; "none" unless given. */
  readonly quantisation?: Quantisation;
  /** Of a base that also reads pictures write the text model alone; false unless given. */
  readonly textOnly?: boolean;
  /** Options of the devices, which are opened one after the other; their defaults unless given. */
  readonly gpuOptions?: GpuOptions;
}

/** Distance of the merged model from base and adapter, on random tokens. */
export interface MergeCheck {
  /** Tokens compared. */
  readonly sampleTokens: number;
  /** Largest difference of the logits. */
  readonly maxAbsoluteDifference: number;
  /** Largest difference of the logits, as a share of the largest logit's magnitude. */
  readonly maxRelativeDifference: number;
  /** Share of positions where both find the same token likeliest. */
  readonly argmaxAgreement: number;
}

/** The result: files, sizes, notes. */
export interface MergeResult {
  /** Folder of the merged model. */
  readonly savePath: string;
  /** Folder of the base model. */
  readonly baseModel: string;
  /** Folder of the adapter. */
  readonly peftModel: string;
  /** Tokens that the merged model's positions are made for. */
  readonly contextSize: number;
  /** Scaling of its positions. */
  readonly ropeScaling: RopeScaling | null;
  /** Its RoPE base. */
  readonly ropeTheta: number;
  /** Linears that have got a LoRA update. */
  readonly mergedLinears: number;
  /** Tensors that the adapter replaced as a whole: embeddings, norms. */
  readonly replacedTensors: number;
  /** Tensors around the text model, which are as the base has them: of a base that also reads pictures. */
  readonly copiedTensors: number;
  /** Number formats of the weights written, without those copied. */
  readonly dtypes: readonly FloatDtype[];
  /** Bytes of all tensors. */
  readonly totalBytes: number;
  /** Names of the weight files. */
  readonly shards: readonly string[];
  /** Null where the device's memory does not hold the models. */
  readonly verification: MergeCheck | null;
  /**
   * The same against the base in 4 bits and the adapter, where the adapter was trained so and is merged onto the full
   * weights: how far the merged model is from the one that was trained.
   */
  readonly verificationAsTrained: MergeCheck | null;
  /** All of the work. */
  readonly seconds: number;
}

/** Tokens of the comparison, and what they are drawn from. */
const SAMPLE = { tokens: 128, seed: 20_231 };

/** Above these relative differences of logits something is wrong: far more than rounding the weights once. */
const EXPECTED: Readonly<Record<FloatDtype, number>> = { F32: 1e-3, F16: 2e-2, BF16: 1e-1 };

/**
 * Merges an adapter into its base model: W + scaling B A in f32, trained embeddings and norms in place of the base's,
 * and a config.json with the positions of the context. A base that also reads pictures stays one, under the names that it
 * came with, and what it has around its text model is copied. Then compares logits of base and adapter with those of what was
 * written. One tensor is in memory at a time; nothing is under `savePath` until all of it is.
 *
 * @throws {UserError} if `savePath` is not empty, a file is missing or damaged, a tensor is not finite or does not fit
 *   the format, or the adapter is not of this model
 */
export async function mergeAdapter(
  options: MergeOptions,
  hooks: WorkHooks = {},
): Promise<MergeResult> {
  const { baseModel, peftModel, savePath } = options;
  const started = performance.now();
  const base = await readConfig(baseModel);
  const { config: settled, trained, notes } = await settleContext(base, {
    peftModel,
    contextSize: options.contextSize,
  });
  const adapted = adaptBase(settled, await readAdapter(peftModel));
  const { config } = adapted;
  const adapter = adapted.adapter!;
  const weights = grownWeights(await openModelWeights(baseModel, base), config, settled);
  try {
    const tokenizer = await tokenizerPlaces(baseModel, peftModel);
    // Parts of two tokenizers that do not fit are refused before hours of work.
    if (tokenizer.ofAdapter.length > 0 && tokenizer.paths.has("tokenizer.json")) {
      const { vocabSize, eosId } = await Tokenizer.load(baseModel, peftModel);
      const ends = [base.raw.eos_token_id].flat().filter(Number.isInteger);
      if (ends.length > 0 && !ends.includes(eosId)) {
        hooks.note?.(
          `The adapter's tokenizer ends texts with token ${eosId}, the base's config.json says eos_token_id ${ends.join()}: what ` +
            "writes text by that may not stop. Set eos_token_id in the merged config.json and generation_config.json",
        );
      }
      if (vocabSize > config.vocab_size) {
        hooks.note?.(
          `The tokenizer has ${vocabSize} tokens, but base and adapter have rows for ${config.vocab_size}: the merged model ` +
            "cannot read texts with those above",
        );
      }
    }
    const tokenizerNote = describePlaces(tokenizer, peftModel);
    const storedName = base.wrapper && !options.textOnly ? await namesInFiles(baseModel) : undefined;
    const plan = planMerge(weights, config, adapter, options.dtype ?? "keep", storedName);
    let shards: readonly string[] = [];
    let checks = NOT_COMPARED;
    const isOfOtherBase = !plan.isQuantised && trained?.load_in_4bit === true &&
      (options.quantisation ?? "none") === "none";
    const otherBase = await otherBaseNote(peftModel, baseModel);
    if (otherBase !== undefined) hooks.note?.(otherBase);
    const room = roomNote(savePath, {
      what: "The weights",
      bytes: plan.totalBytes,
      remedy: "make room, or choose another folder",
    });
    if (room !== undefined) hooks.note?.(room);
    [
      ...notes,
      ...adapted.notes,
      ...await tableNotes(baseModel, base),
      ...tokenizerNote ? [tokenizerNote] : [],
      ...planNotes(plan, options, isOfOtherBase),
    ].forEach((line) => hooks.note?.(line));
    await saveFolderAtomic(savePath, async (folder) => {
      ({ shards } = await writeMerged(folder, plan, { ...options, tokenizer: tokenizer.paths }, hooks));
      checks = await verifyMerge(folder, plan, { ...options, settled, isOfOtherBase }, hooks);
    }, { byteLength: plan.totalBytes, note: hooks.note });
    return {
      savePath,
      baseModel,
      peftModel,
      contextSize: contextLength(config),
      ropeScaling: config.rope_scaling,
      ropeTheta: config.rope_theta,
      mergedLinears: adapter.lora.size,
      replacedTensors: adapter.extra.size,
      copiedTensors: plan.copied.length,
      dtypes: plan.dtypes,
      totalBytes: plan.totalBytes,
      shards,
      verification: checks.asMerged,
      verificationAsTrained: checks.asTrained,
      seconds: (performance.now() - started) / 1000,
    };
  } finally {
    weights.close();
  }
}

/** Notes for the user before the merge. */
function planNotes(
  plan: MergePlan,
  { dtype = "keep", textOnly = false }: MergeOptions,
  isOfOtherBase: boolean,
): string[] {
  const notes: string[] = [];
  if (plan.isQuantised) {
    notes.push(
      `The base is in 4 bits: its linears are dequantised and written as ${plan.dtypes.join(" and ")}` +
        (dtype === "keep" ? ", as its config.json says. Choose another with --dtype" : ""),
    );
  } else if (isOfOtherBase) {
    notes.push(
      "The adapter was trained on the base in 4 bits and is merged onto its full weights, which differ a little: " +
        "--load_in_4bit merges onto what training saw",
    );
  }
  if (plan.copied.length > 0) {
    notes.push(
      `The merged model reads pictures as the base does: ${plan.copied.length} tensors around the text model are copied ` +
        "as they are. --text_only leaves them out",
    );
  } else if (plan.config.wrapper && !textOnly) {
    notes.push("The base's files hold nothing of the part that reads pictures");
  } else if (textOnly && !plan.config.wrapper) {
    notes.push("--text_only changes nothing: the base is a text model");
  }
  if (plan.copied.length === 0) notes.push(...textAloneNotes(plan.config));
  if (plan.leftOut.length > 0) {
    const names = plan.leftOut.slice(0, 3).join(", ") + (plan.leftOut.length > 3 ? ", ..." : "");
    notes.push(`Left out ${plan.leftOut.length} tensors that are no part of the model: ${names}`);
  }
  return notes;
}

async function writeMerged(
  folder: string,
  plan: MergePlan,
  { baseModel, peftModel, maxShardSize = 5e9, quantisation = "none", gpuOptions, tokenizer }: MergeOptions & {
    tokenizer: ReadonlyMap<string, string>;
  },
  hooks: WorkHooks,
): Promise<WrittenModel> {
  const { config } = plan;
  const { quantization_config: _, ...kept } = configJson(config);
  const text = { ...kept, ...torchDtype(kept, plan.dtypes) };
  const isSaid = plan.dtypes.length === 1 && plan.dtypes[0] === torchDtypeOf(config);
  const isWhole = plan.copied.length > 0;
  const context_length = contextLength(config);
  using gpu = await openGpu(gpuOptions);
  const written = await writeModel(folder, {
    config: {
      ...(isWhole ? wrapperJson(config.wrapper!, isSaid ? kept : text) : text),
      longreach: {
        base_model: baseModel,
        peft_model: peftModel,
        context_length,
        base_in_4bit: quantisation !== "none" || plan.isQuantised,
      },
    },
    tensors: mergedTensors(gpu, plan, {
      quantisation,
      onProgress: (name, done, total) => hooks.onProgress?.(done, total, name),
    }),
    filesFrom: baseModel,
    alsoCopied: isWhole ? PROCESSOR_FILES : [],
    tokenizer,
    modelMaxLength: context_length,
    maxShardBytes: maxShardSize,
  });
  await writeCard(folder, { base: baseModel, config });
  return written;
}

/** Comparisons of the written model with base and adapter. */
interface MergeChecks {
  readonly asMerged: MergeCheck | null;
  /** Null unless training had another base. */
  readonly asTrained: MergeCheck | null;
}

/** Result where the device's memory does not hold the models. */
const NOT_COMPARED: MergeChecks = { asMerged: null, asTrained: null };

/**
 * Compares what was written with base and adapter.
 * @throws {UserError} if logits are not finite
 */
async function verifyMerge(
  folder: string,
  plan: MergePlan,
  { baseModel, peftModel, quantisation = "none", gpuOptions, settled, isOfOtherBase }: MergeOptions & {
    /** The base model's configuration with its positions settled. */
    readonly settled: ModelConfig;
    readonly isOfOtherBase: boolean;
  },
  hooks: WorkHooks,
): Promise<MergeChecks> {
  const { config } = plan;
  const random = new Random(SAMPLE.seed);
  const length = Math.min(SAMPLE.tokens, contextLength(config));
  const tokens = Uint32Array.from({ length }, () => random.below(config.vocab_size));
  try {
    const actual = await logitsOf({ baseModel: folder }, tokens, gpuOptions);
    const checkBeside = async (quantisation: Quantisation) => {
      const parts = { baseModel, peftModel, config: settled, quantisation };
      return compareLogits(actual, await logitsOf(parts, tokens, gpuOptions), length);
    };
    const check = await checkBeside(quantisation);
    const most = Math.max(...plan.dtypes.map((dtype) => EXPECTED[dtype]));
    if (check.maxRelativeDifference > most) {
      hooks.note?.(
        `Logits of the merged model differ from those of base and adapter by ${
          (100 * check.maxRelativeDifference).toPrecision(2)
        } % of the largest: evaluate it before use, or merge with --dtype fp32`,
      );
    }
    return { asMerged: check, asTrained: isOfOtherBase ? await checkBeside("nf4-double") : null };
  } catch (error) {
    if (!(error instanceof GpuMemoryError)) throw error;
    hooks.note?.(`The merged model was not compared with base and adapter: ${error.message}`);
    return NOT_COMPARED;
  }
}

/** Logits (T, V) of one sequence, on a device of its own so that only one model is in memory. */
async function logitsOf(
  options: OpenOptions,
  tokens: Uint32Array,
  gpuOptions: GpuOptions | undefined,
): Promise<Float32Array> {
  using gpu = await openGpu(gpuOptions);
  const { model } = await openModel(gpu, options);
  return await model.logits(model.upload(makeBatch([{ inputIds: tokens }])));
}

/**
 * @param actual (rows, V)
 * @param expected (rows, V)
 * @throws {UserError} if a logit is not finite
 */
export function compareLogits(actual: Float32Array, expected: Float32Array, rows: number): MergeCheck {
  const width = expected.length / rows;
  const most = { difference: 0, magnitude: 0 };
  let agreed = 0;
  for (let row = 0; row < rows; row++) {
    const best = { actual: row * width, expected: row * width };
    for (let i = row * width; i < (row + 1) * width; i++) {
      const difference = Math.abs(actual[i]! - expected[i]!);
      if (!Number.isFinite(difference)) {
        throw new UserError(
          "Cannot merge: logits of the models are not finite. The base model or the adapter is damaged",
        );
      }
      most.difference = Math.max(most.difference, difference);
      most.magnitude = Math.max(most.magnitude, Math.abs(expected[i]!));
      if (actual[i]! > actual[best.actual]!) best.actual = i;
      if (expected[i]! > expected[best.expected]!) best.expected = i;
    }
    if (best.actual === best.expected) agreed++;
  }
  return {
    sampleTokens: rows,
    maxAbsoluteDifference: most.difference,
    maxRelativeDifference: most.difference / most.magnitude,
    argmaxAgreement: agreed / rows,
  };
}
