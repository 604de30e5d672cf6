/** `train book.pdf --model org/name --context 32k`: a run without settings, and what it brought. */
import { holdOut } from "../data/tokenize.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import type { GpuOptions } from "../kernels/gpu.ts";
import { quantisationOf } from "../model/quantisation.ts";
import { evaluatePerplexity, type PerplexityResult, type PositionScore } from "../eval/perplexity.ts";
import { formatCount, formatTable } from "../text.ts";
import { loadTrainArgs, type TrainSettings } from "../train_args/load.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import { locate } from "./hub.ts";
import type { Io } from "./io.ts";
import { loadingAndCounting } from "./stages.ts";
import { trainedModelFlags } from "./train_flags.ts";

/** LongQLoRA's recipe (`train_args/llama2-7b-pretrain.yaml`), for some hundred steps in place of 1,000 of 16 sequences. */
const RECIPE = {
  sft: "false",
  packing: "true",
  lora_rank: "64",
  lora_alpha: "16",
  lora_dropout: "0.05",
  num_train_epochs: "3",
  per_device_train_batch_size: "1",
  gradient_accumulation_steps: "1",
  optim: "paged_adamw_32bit",
  learning_rate: "2e-4",
  lr_scheduler_type: "constant_with_warmup",
  warmup_ratio: "0.03",
  weight_decay: "0",
  max_grad_norm: "0.3",
  bf16: "true",
  logging_steps: "1",
} as const satisfies TrainSettings;

/** A run on documents, its data written. */
export interface DocumentRun {
  /** For {@linkcode loadTrainArgs}: all that was chosen is in the `train_args.yaml` that the run writes. */
  readonly settings: TrainSettings;
  readonly args: TrainArgs;
  /** Folder of the base model. */
  readonly baseModel: string;
  /** Token file that nothing was learnt from. */
  readonly heldOut: string;
}

/**
 * Chooses the settings that were not given, and writes the documents as token files, their end held out.
 * @throws {UserError} if model or context are not said, or the documents are too short
 */
export async function prepareDocuments(
  documents: readonly string[],
  given: Readonly<Record<string, string>>,
  io: Io,
): Promise<DocumentRun> {
  const named = (...names: string[]) => names.some((name) => given[name] !== undefined);
  const missing = [
    ...(named("model", "model_name_or_path") ? [] : ["--model, a name on the hub or a folder"]),
    ...(named("context", "context_size", "model_max_length", "max_seq_length")
      ? []
      : ["--context, as in 32k"]),
  ];
  if (missing.length > 0) {
    throw new UserError(`To train on documents, train needs ${missing.join(" and ")}`, {
      kind: "usage",
    });
  }
  const name = documents[0]!.split(/[\\/]/).findLast((part) => part !== "")!.replace(/\.[^.]+$/, "");
  const output = `output/${name}-${given.context ?? given.model_max_length ?? given.max_seq_length}`;
  const output_dir = given.output_dir ?? output;
  const folder = `${output_dir}-data`;
  const { model: base = given.model_name_or_path, context = given.model_max_length, ...others } = given;
  const settings = {
    ...RECIPE,
    output_dir,
    train_file: `${folder}/train.bin`,
    ...others,
    model_name_or_path: base,
    model_max_length: context,
  };
  const { args } = await loadTrainArgs(null, settings);
  const baseModel = await locate(io, args.model_name_or_path, "model");
  const found = await Promise.all(documents.map((place) => locate(io, place, "dataset")));
  const { trainTokens, heldOutTokens, heldOut } = await holdOut(
    found,
    folder,
    await Tokenizer.load(baseModel),
    {
      context: args.max_seq_length,
      note: (line) => io.err(line),
    },
  );
  io.err(
    `${documents.join(", ")}: ${formatCount(trainTokens)} tokens to train on, and the last ${
      formatCount(heldOutTokens)
    } held out to measure on, in ${folder}`,
  );
  return { settings, args, baseModel, heldOut };
}

/** Perplexity of what was held out. */
export interface Extension {
  /** Perplexity of the base as it is. */
  readonly before: PerplexityResult;
  readonly after: PerplexityResult;
}

/** Measures the base as it is, and extended. */
export async function measureExtension(
  { args, baseModel, heldOut }: DocumentRun,
  gpuOptions: GpuOptions,
  io: Io,
): Promise<Extension> {
  const { max_seq_length: seqLen, output_dir, low_rank_training } = args;
  const extended = low_rank_training ? { baseModel, peftModel: output_dir } : { baseModel: output_dir };
  const measure = (model: typeof extended | { baseModel: string }) =>
    loadingAndCounting(io, "window", (hooks) =>
      evaluatePerplexity({
        ...model,
        dataPath: heldOut,
        seqLen,
        slidingWindow: seqLen,
        dropLastWindow: false,
        quantisation: quantisationOf({ load_in_4bit: args.load_in_4bit && low_rank_training }),
        dtype: args.bf16 ? "bf16" : args.fp16 ? "fp16" : "fp32",
        gpuOptions,
      }, hooks));
  return { before: await measure({ baseModel }), after: await measure(extended) };
}

/** Both by position in the window, and what to type next. */
export function describeExtension({ args }: DocumentRun, { before, after }: Extension): string {
  const { max_seq_length: seqLen } = args;
  const row = (name: string, scores: readonly PositionScore[], all: number) => [
    name,
    ...scores.map(({ perplexity }) => perplexity.toFixed(2)),
    all.toFixed(2),
  ];
  return [
    "",
    `Perplexity by position in ${formatCount(seqLen)} tokens that nothing was learnt from`,
    formatTable([
      ["", ...before.byPosition.map(({ from, to }) => `${formatCount(from)}-${formatCount(to - 1)}`), "all"],
      row("base", before.byPosition, before.tokenPerplexity),
      row("extended", after.byPosition, after.tokenPerplexity),
    ], "lrrrrr"),
    "",
    "Next:",
    `  ./longreach chat ${trainedModelFlags(args)} --file BOOK.pdf`,
  ].join("\n");
}
