/** Flags of the commands that write with a model: which model, and how it draws tokens. */
import { UnknownTokens } from "../data/spelling.ts";
import { TEMPLATE_NAMES } from "../data/templates.ts";
import type { AnswerOptions, Engine, EngineOptions } from "../chat/engine.ts";
import { oneOf, real, whole } from "../train_args/values.ts";
import { adapterFlag, booleanFlag, type newCommand, optionalFlag, requiredPath, valueFlag } from "./flags.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import type { Io } from "./io.ts";
import { CountProgress } from "./progress.ts";
import { quantisationOf } from "../model/quantisation.ts";

type Plain = ReturnType<typeof newCommand>;

/** Adds the flags that {@linkcode openEngine} reads: which model, and how it is held. */
export function withModelFlags(command: Plain) {
  return command
    .addOption(requiredPath("base_model", "folder of the base or merged model, or its name on the hub"))
    .addOption(adapterFlag())
    .addOption(
      optionalFlag(
        "context_size",
        "context to scale the positions for, in tokens",
        whole(2, 16_777_216),
        "the adapter's, else the model's own",
      ),
    )
    .addOption(booleanFlag("load_in_4bit", "hold the base in 4-bit NF4", false))
    .addOption(
      valueFlag("dtype", "numbers of activations", oneOf(["fp32", "bf16", "fp16"]), "fp32"),
    )
    .addOption(
      optionalFlag(
        "chat_template",
        "how turns are written",
        oneOf([...TEMPLATE_NAMES, "model"]),
        "the model's own, else bare text",
      ),
    );
}

/** Tokens of an answer where neither flag nor context ends it before; LongLoRA's. */
export const MOST_TOKENS = 512;

/** Formats by the names that the flags have for them. */
const FORMATS = { fp32: "f32", bf16: "bf16", fp16: "f16", q8: "q8" } as const;

/** Adds those flags, how the cache is held, and the ones that {@linkcode samplingOf} reads. */
export function withAnswerFlags(command: Plain) {
  return withModelFlags(command)
    .addOption(
      optionalFlag(
        "kv_cache_dtype",
        "numbers of keys and values; q8: 8 bits and a scale for each head of a token",
        oneOf(["fp32", "bf16", "fp16", "q8"]),
        "as dtype",
      ),
    )
    .addOption(
      optionalFlag(
        "max_gen_len",
        "most tokens of an answer",
        whole(1),
        `${MOST_TOKENS}, or what the context has left`,
      ),
    )
    .addOption(
      optionalFlag(
        "temperature",
        "0 takes the likeliest token",
        real({ min: 0, max: 100 }),
        "the model's, else 0.6",
      ),
    )
    .addOption(
      optionalFlag(
        "top_p",
        "only the likeliest tokens of this probability",
        real({ min: 0, max: 1 }),
        "the model's, else 0.9",
      ),
    )
    .addOption(
      optionalFlag(
        "top_k",
        "only so many of the likeliest tokens; 0 for all",
        whole(0, 1e6),
        "the model's, else 0",
      ),
    )
    .addOption(
      optionalFlag(
        "min_p",
        "only tokens this many times as likely as the likeliest",
        real({ min: 0, max: 1 }),
        "the model's, else 0",
      ),
    )
    .addOption(
      optionalFlag(
        "repetition_penalty",
        "divides what was there before; 1 for none",
        real({ min: 0, max: 100 }),
        "the model's, else 1",
      ),
    )
    .addOption(
      optionalFlag("seed", "the same gives the same answer", whole(0, 2 ** 32 - 1), "drawn, and told"),
    );
}

/** The values of the flags of a model. */
export type ModelFlags = Omit<ReturnType<ReturnType<typeof withModelFlags>["opts"]>, "json">;

/** The values of those flags. */
export type AnswerFlags = Omit<ReturnType<ReturnType<typeof withAnswerFlags>["opts"]>, "json">;

/**
 * Loads the model that the flags name, with a line of progress. Notes go to `io`.
 * @param length of prompt and answer; the context unless given
 */
export async function openEngine(
  io: Io,
  flags: ModelFlags & Partial<Pick<AnswerFlags, "kv_cache_dtype">>,
  length: Pick<EngineOptions, "mostTokens" | "sinks"> = {},
): Promise<Engine> {
  const { locate } = await import("./hub.ts");
  const options: EngineOptions = {
    baseModel: await locate(io, flags.base_model, "model"),
    peftModel: flags.peft_model && await locate(io, flags.peft_model, "model"),
    contextSize: flags.context_size,
    quantisation: quantisationOf(flags),
    format: FORMATS[flags.dtype],
    ...(flags.kv_cache_dtype ? { cacheFormat: FORMATS[flags.kv_cache_dtype] } : {}),
    chatTemplate: flags.chat_template,
    ...length,
    gpuOptions: gpuOptionsOf(io, flags.webgpu),
  };
  const { Engine } = await import("../chat/engine.ts");
  const progress = new CountProgress(io, "tensor");
  try {
    const engine = await Engine.open({
      ...options,
      onLoad: (tensor, done, total) => progress.onProgress(done, total, tensor),
    });
    progress.stop();
    for (const note of engine.notes) io.err(note);
    return engine;
  } finally {
    progress.stop();
  }
}

/** Adds the flags that {@linkcode sinksOf} reads; names and defaults are LongLoRA's. */
export function withSinkFlags<T extends ReturnType<typeof withAnswerFlags>>(command: T) {
  return command
    .addOption(
      booleanFlag(
        "enable_streaming",
        "go on without end: only the first and the last tokens are kept (StreamingLLM)",
        false,
      ),
    )
    .addOption(valueFlag("start_size", "first tokens that are kept with --enable_streaming", whole(0), 4))
    .addOption(
      valueFlag("recent_size", "last tokens that are kept with --enable_streaming", whole(16), 2000),
    );
}

/** Picks the tokens that the flags keep of a conversation without end; nothing where it has one. */
export function sinksOf(
  { enable_streaming, start_size, recent_size }: {
    readonly enable_streaming: boolean;
    readonly start_size: number;
    readonly recent_size: number;
  },
): Pick<EngineOptions, "sinks"> {
  return enable_streaming ? { sinks: { startSize: start_size, recentSize: recent_size } } : {};
}

/** Picks the settings of sampling that the flags give; a seed in any case. */
export function samplingOf(flags: AnswerFlags): AnswerOptions & { readonly seed: number } {
  const { temperature, top_p, top_k, min_p, repetition_penalty } = flags;
  return {
    ...(temperature === null ? {} : { temperature }),
    ...(top_p === null ? {} : { topP: top_p }),
    ...(top_k === null ? {} : { topK: top_k }),
    ...(min_p === null ? {} : { minP: min_p }),
    ...(repetition_penalty === null ? {} : { repetitionPenalty: repetition_penalty }),
    seed: flags.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!,
  };
}

/**
 * Notes how many tokens of a prompt stand for what the tokenizer does not know.
 * @throws {UserError} where most do
 */
export function noteUnknown(
  io: Pick<Io, "err">,
  { tokenizer }: Pick<Engine, "tokenizer">,
  ids: readonly number[],
  what: string,
): void {
  const unknown = new UnknownTokens(tokenizer);
  unknown.add(ids);
  const note = unknown.describe(what);
  if (note) io.err(note);
}
