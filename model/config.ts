import { z } from "zod";
import { UserError } from "../errors.ts";

/** `rope_scaling` as Hugging Face writes it, with `type` settled. */
export type RopeScaling =
  | { readonly type: "linear" | "dynamic"; readonly factor: number }
  | {
    readonly type: "llama3";
    readonly factor: number;
    readonly low_freq_factor: number;
    readonly high_freq_factor: number;
    readonly original_max_position_embeddings: number;
  }
  | {
    readonly type: "yarn";
    readonly factor: number;
    readonly original_max_position_embeddings: number;
    readonly beta_fast: number;
    readonly beta_slow: number;
    /** Factor of cos and sin. */
    readonly attention_factor: number;
  };

/** The architectures that are LLaMA's layers with a difference each: see {@linkcode LlamaConfig}. */
export const LLAMA_LIKE = ["llama", "mistral", "qwen2"] as const;

/**
 * A LLaMA model's shape: the keys of its `config.json`, checked, with Hugging Face's defaults filled in. Mistral may see
 * only a window of the last tokens; Qwen2 has biases on q, k and v, and may have such a window too.
 */
export interface LlamaConfig {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly max_position_embeddings: number;
  readonly rms_norm_eps: number;
  readonly rope_theta: number;
  readonly rope_scaling: RopeScaling | null;
  readonly tie_word_embeddings: boolean;
  /** Which of the attention's linears have a bias. */
  readonly attention_bias: "none" | "qkv" | "all";
  readonly mlp_bias: boolean;
  /** Most tokens that one sees, itself included; all unless given. */
  readonly sliding_window: number | null;
  /** The file as it is: `merge` writes it back with what changed. */
  readonly raw: Readonly<Record<string, unknown>>;
}

const count = z.int().min(1).max(2 ** 24);
const positive = z.number().positive();

const SCHEMA = z.object({
  model_type: z.string(),
  vocab_size: count,
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: count,
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  max_position_embeddings: z.int().min(1).default(2048),
  rms_norm_eps: positive.default(1e-6),
  rope_theta: positive.nullish(),
  rope_scaling: z.record(z.string(), z.unknown()).nullish(),
  rope_parameters: z.looseObject({ rope_theta: positive.nullish() }).nullish(),
  hidden_act: z.string().default("silu"),
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  sliding_window: count.nullish(),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.int().min(0).nullish(),
});

const LINEAR = z.object({ factor: z.number().min(1) });
const LLAMA3 = z.object({
  factor: z.number().min(1),
  low_freq_factor: positive,
  high_freq_factor: positive,
  original_max_position_embeddings: count,
});
const YARN = z.object({
  factor: z.number().min(1),
  original_max_position_embeddings: count.nullish(),
  beta_fast: positive.nullish(),
  beta_slow: positive.nullish(),
  attention_factor: positive.nullish(),
});

/**
 * Reads and checks `config.json` of a model folder.
 * @throws {UserError} if it is missing, not JSON, of another architecture, or its numbers do not fit together
 */
export async function readConfig(folder: string): Promise<LlamaConfig> {
  const path = `${folder}/config.json`;
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
      throw new UserError(`Cannot load the model "${folder}": it has no config.json. Check the path`, {
        cause: error,
      });
    }
    throw new UserError(`Cannot read "${path}": ${(error as Error).message}`, { cause: error });
  }
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new UserError(`Cannot read "${path}": it is not JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return parseConfig(raw, path);
}

/** Checks the content of a `config.json`; `path` is for messages. */
export function parseConfig(raw: unknown, path: string): LlamaConfig {
  const modelType = (raw as { model_type?: unknown } | null)?.model_type;
  if (!(LLAMA_LIKE as readonly unknown[]).includes(modelType)) {
    throw new UserError(
      `Cannot load "${path}": its model_type is ${JSON.stringify(modelType)}; models of type ` +
        `${LLAMA_LIKE.join(", ")} can be loaded`,
    );
  }
  const parsed = SCHEMA.safeParse(raw);
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path: key, message }) => `${key.join(".")}: ${message}`);
    throw new UserError(`Cannot use "${path}": ${problems.join("; ")}`);
  }
  const { hidden_act, rope_parameters, ...c } = parsed.data;
  const heads = c.num_attention_heads;
  const config: LlamaConfig = {
    vocab_size: c.vocab_size,
    hidden_size: c.hidden_size,
    intermediate_size: c.intermediate_size,
    num_hidden_layers: c.num_hidden_layers,
    num_attention_heads: heads,
    num_key_value_heads: c.num_key_value_heads ?? heads,
    head_dim: c.head_dim ?? c.hidden_size / heads,
    max_position_embeddings: c.max_position_embeddings,
    rms_norm_eps: c.rms_norm_eps,
    rope_theta: rope_parameters?.rope_theta ?? c.rope_theta ?? 10000,
    rope_scaling: parseRopeScaling(
      c.rope_scaling ?? rope_parameters ?? null,
      c.max_position_embeddings,
      path,
    ),
    tie_word_embeddings: c.tie_word_embeddings,
    attention_bias: modelType === "qwen2" ? "qkv" : c.attention_bias ? "all" : "none",
    mlp_bias: c.mlp_bias,
    sliding_window: windowOf(modelType, parsed.data, path),
    raw: raw as Record<string, unknown>,
  };
  const problem = problemOf(config, hidden_act);
  if (problem) throw new UserError(`Cannot use "${path}": ${problem}`);
  return config;
}

/** LLaMA has no window. Qwen2's is in the layers from `max_window_layers` on, if it is switched on. */
function windowOf(
  modelType: unknown,
  c: Pick<
    z.infer<typeof SCHEMA>,
    "sliding_window" | "use_sliding_window" | "max_window_layers" | "num_hidden_layers"
  >,
  path: string,
): number | null {
  if (modelType === "mistral") return c.sliding_window ?? null;
  const first = c.max_window_layers ?? 0;
  if (modelType !== "qwen2" || !c.use_sliding_window || first >= c.num_hidden_layers) return null;
  if (first === 0) return c.sliding_window ?? null;
  throw new UserError(
    `Cannot use "${path}": its sliding window is in the layers from ${first} on only, and every layer must have the ` +
      `same here. Set use_sliding_window: false in it if your sequences are no longer than ${c.sliding_window}`,
  );
}

/**
 * Checks a `rope_scaling` map, from a model or from the user.
 * @param maxPositions `max_position_embeddings`, where the map does not say what the model was trained on
 */
export function parseRopeScaling(
  raw: Readonly<Record<string, unknown>> | null,
  maxPositions: number,
  path: string,
): RopeScaling | null {
  const type = raw?.rope_type ?? raw?.type;
  if (!raw || type === "default") return null;
  if (type === undefined) {
    if (raw.factor === undefined) return null;
    throw new UserError(
      `Cannot use "${path}": rope_scaling has a factor but no type; linear, dynamic, llama3 and yarn are known`,
    );
  }
  const check = <T>(schema: z.ZodType<T>): T => {
    const parsed = schema.safeParse(raw);
    if (parsed.success) return parsed.data;
    const problems = parsed.error.issues.map(({ path: key, message }) => `${key.join(".")}: ${message}`);
    throw new UserError(
      `Cannot use "${path}": rope_scaling of type ${JSON.stringify(type)}: ${problems.join("; ")}`,
    );
  };
  switch (type) {
    case "linear":
      return { type: "linear", factor: check(LINEAR).factor };
    case "dynamic":
      return { type: "dynamic", factor: check(LINEAR).factor };
    case "llama3":
      return { type: "llama3", ...check(LLAMA3) };
    case "yarn": {
      const { factor, original_max_position_embeddings, beta_fast, beta_slow, attention_factor } = check(
        YARN,
      );
      return {
        type: "yarn",
        factor,
        original_max_position_embeddings: original_max_position_embeddings ?? maxPositions,
        beta_fast: beta_fast ?? 32,
        beta_slow: beta_slow ?? 1,
        // Peng et al. 2023, YaRN, arXiv:2309.00071, equation 22.
        attention_factor: attention_factor ?? 0.1 * Math.log(factor) + 1,
      };
    }
    default:
      throw new UserError(
        `Cannot use "${path}": rope_scaling of type ${JSON.stringify(type)} is not known; ` +
          `linear, dynamic, llama3 and yarn are`,
      );
  }
}

function problemOf(config: LlamaConfig, hiddenAct: string): string | undefined {
  const {
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim,
    hidden_size,
    intermediate_size,
  } = config;
  if (hiddenAct !== "silu") return `hidden_act is "${hiddenAct}", LLaMA has "silu"`;
  if (heads % kvHeads !== 0) {
    return `num_attention_heads ${heads} is no multiple of num_key_value_heads ${kvHeads}`;
  }
  if (!Number.isInteger(head_dim) || head_dim % 4 !== 0 || head_dim > 256) {
    return `the head size ${head_dim} is not a multiple of 4 up to 256`;
  }
  if (hidden_size % 4 !== 0 || intermediate_size % 4 !== 0) {
    return `hidden_size ${hidden_size} and intermediate_size ${intermediate_size} must be multiples of 4`;
  }
  return undefined;
}

/** The tokens a model was made to see, position scaling included. */
export function contextLength({ max_position_embeddings, rope_scaling }: LlamaConfig): number {
  return rope_scaling?.type === "linear"
    ? max_position_embeddings * rope_scaling.factor
    : max_position_embeddings;
}

/**
 * The configuration for sequences of `length` tokens: linear position interpolation by
 * ceil(length / max_position_embeddings), as LongLoRA does, where the model's own context is shorter.
 * A scaling that is already there is replaced by one for the whole extension, never stacked on.
 *
 * @throws {UserError} if the model has a scaling of another kind, which linear interpolation cannot extend
 * @see Chen et al. 2023, arXiv:2306.15595 (position interpolation)
 */
export function extendContext(config: LlamaConfig, length: number): LlamaConfig {
  if (length <= contextLength(config)) return config;
  const { rope_scaling, max_position_embeddings } = config;
  if (rope_scaling && rope_scaling.type !== "linear") {
    if (rope_scaling.type === "dynamic") return config;
    throw new UserError(
      `Cannot extend the context to ${length} tokens: the model has ${max_position_embeddings} with rope_scaling ` +
        `of type "${rope_scaling.type}", which linear interpolation cannot extend. Set rope_scaling or rope_theta`,
      { exitCode: 2 },
    );
  }
  return { ...config, rope_scaling: { type: "linear", factor: Math.ceil(length / max_position_embeddings) } };
}
