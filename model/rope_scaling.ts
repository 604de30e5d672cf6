import { printable, quote } from "../text.ts";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { checked, count, positive } from "./checked.ts";

/** `rope_scaling` as Hugging Face writes it, with `type` settled and every default filled in. */
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
    /** False: the bounds of the blend are not rounded to whole pairs. */
    readonly truncate?: false;
  }
  | {
    readonly type: "longrope";
    readonly factor: number;
    readonly original_max_position_embeddings: number;
    /** What each pair's frequency is divided by in sequences of the original length at most. */
    readonly short_factor: readonly number[];
    /** The same in longer ones. */
    readonly long_factor: readonly number[];
    /** Factor of cos and sin, whatever the length. */
    readonly attention_factor: number;
  };

/** Keys of the model on which the meaning of a scaling depends. */
export interface ScaledModel {
  readonly max_position_embeddings: number;
  /** Tokens the model was trained on where the scaling does not say it; `max_position_embeddings` unless given. */
  readonly original_max_position_embeddings?: number | undefined;
  /** Elements of a head that rotate. */
  readonly rotary_dim: number;
}

/** A scaling, and what the user should know of it. */
export interface ParsedScaling {
  readonly rope_scaling: RopeScaling | null;
  /** One line each. */
  readonly notes: readonly string[];
}

const factor = z.number().min(1);
const original = count.nullish();
/** Keys of a map for any type: what they say is read elsewhere, or is the type itself. */
const ANYWHERE = ["type", "rope_type", "rope_theta", "partial_rotary_factor"];

const SCHEMAS = {
  linear: z.object({ factor }),
  dynamic: z.object({ factor }),
  llama3: z.object({
    factor,
    low_freq_factor: positive,
    high_freq_factor: positive,
    original_max_position_embeddings: count,
  }),
  yarn: z.object({
    factor: factor.nullable(),
    original_max_position_embeddings: original,
    beta_fast: positive.nullish(),
    beta_slow: positive.nullish(),
    attention_factor: positive.nullish(),
    mscale: z.number().nullish(),
    mscale_all_dim: z.number().nullish(),
    truncate: z.boolean().nullish(),
  }),
  longrope: z.object({
    factor: factor.nullish(),
    original_max_position_embeddings: original,
    short_factor: z.array(positive),
    long_factor: z.array(positive),
    attention_factor: positive.nullish(),
  }),
} as const;

type ScalingType = keyof typeof SCHEMAS;

/**
 * Checks a `rope_scaling` or `rope_parameters` map, from a model or from the user, and reads it as `transformers` does.
 * @param path for messages: the file, or the setting
 * @throws {UserError} if its type is not known, or a key is missing, of the wrong type, or does not fit the others
 */
export function parseRopeScaling(
  raw: Readonly<Record<string, unknown>> | null,
  model: ScaledModel,
  path: string,
): ParsedScaling {
  if (!raw) return { rope_scaling: null, notes: [] };
  const nested = Object.keys(raw).filter((key) =>
    typeof raw[key] === "object" && raw[key] !== null && !Array.isArray(raw[key])
  );
  if (nested.length > 0) {
    throw new UserError(
      `Cannot use "${path}": its rope_parameters have a map for each kind of layer (${
        nested.join(", ")
      }); here all ` +
        `layers rotate alike`,
    );
  }
  const given = Object.keys(raw).filter((key) => raw[key] !== null && raw[key] !== undefined);
  const named = raw.rope_type ?? raw.type;
  const keys = given.filter((key) => !ANYWHERE.includes(key));
  if (named === undefined || named === null) {
    if (keys.length === 0) return { rope_scaling: null, notes: [] };
    throw new UserError(
      `Cannot use "${path}": rope_scaling has a ${keys[0]} but no type; ${known()} are known`,
    );
  }
  const notes: string[] = [];
  if (raw.rope_type && raw.type && raw.rope_type !== raw.type && raw.type !== "mrope") {
    notes.push(`rope_scaling has type "${raw.type}" beside rope_type "${raw.rope_type}": rope_type counts`);
  }
  // Phi-3's first name for it.
  const type = named === "su" ? "longrope" : named;
  if (type === "default") {
    return { rope_scaling: null, notes: [...notes, ...withoutEffect(keys.filter(isNoMrope), "default")] };
  }
  if (type === "mrope") {
    throw new UserError(
      `Cannot use "${path}": rope_scaling of type "mrope" is for images and video. With text alone it is the plain ` +
        `rotation: set rope_scaling to null in it if the model is to read text only`,
    );
  }
  if (typeof type !== "string" || !Object.hasOwn(SCHEMAS, type)) {
    throw new UserError(
      `Cannot use "${path}": rope_scaling of type ${quote(type)} is not known; ${known()} are`,
    );
  }
  const what = `"${path}": rope_scaling of type "${type}"`;
  const unknown = keys.filter((key) => !Object.hasOwn(SCHEMAS[type as ScalingType].shape, key));
  notes.push(...withoutEffect(unknown, type));
  const settled = settle(type as ScalingType, raw, model, what);
  return { rope_scaling: settled.rope_scaling, notes: [...notes, ...settled.notes] };
}

/** Tokens that a scaling was made for; undefined where it does not say. */
export function scaledLength(
  scaling: RopeScaling | null,
  { max_position_embeddings }: Pick<ScaledModel, "max_position_embeddings">,
): number | undefined {
  switch (scaling?.type) {
    case "linear":
      return Math.floor(scaling.factor * max_position_embeddings);
    case "yarn":
    case "longrope":
      return Math.floor(scaling.factor * scaling.original_max_position_embeddings);
    default:
      return undefined;
  }
}

function known(): string {
  const names = Object.keys(SCHEMAS);
  return `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/** Which part of a head counts which of an image's axes: text has all three alike. */
function isNoMrope(key: string): boolean {
  return key !== "mrope_section" && key !== "mrope_interleaved";
}

function withoutEffect(keys: readonly string[], type: string): string[] {
  if (keys.length === 0) return [];
  const verb = keys.length === 1 ? "has" : "have";
  return [`rope_scaling of type "${type}": ${keys.map(printable).join(", ")} ${verb} no effect there`];
}

function settle(
  type: ScalingType,
  raw: Readonly<Record<string, unknown>>,
  model: ScaledModel,
  what: string,
): ParsedScaling {
  const trained = model.original_max_position_embeddings ?? model.max_position_embeddings;
  switch (type) {
    case "linear":
    case "dynamic":
      return { rope_scaling: { type, factor: checked(SCHEMAS[type], raw, what).factor }, notes: [] };
    case "llama3": {
      const scaling = checked(SCHEMAS.llama3, raw, what);
      if (scaling.high_freq_factor <= scaling.low_freq_factor) {
        throw new UserError(
          `Cannot use ${what}: high_freq_factor ${scaling.high_freq_factor} must be above low_freq_factor ` +
            `${scaling.low_freq_factor}`,
        );
      }
      return { rope_scaling: { type, ...scaling }, notes: [] };
    }
    case "yarn":
      return settleYarn(checked(SCHEMAS.yarn, raw, what), { ...model, trained }, what);
    case "longrope":
      return settleLongrope(checked(SCHEMAS.longrope, raw, what), { ...model, trained }, what);
  }
}

function settleYarn(
  given: z.infer<typeof SCHEMAS.yarn>,
  { max_position_embeddings: longest, trained }: ScaledModel & { readonly trained: number },
  what: string,
): ParsedScaling {
  const original = given.original_max_position_embeddings ?? trained;
  // As DeepSeek-V3 has it.
  const factor = given.factor ?? Math.max(1, longest / original);
  const [beta_fast, beta_slow] = [given.beta_fast ?? 32, given.beta_slow ?? 1];
  if (beta_fast < beta_slow) {
    throw new UserError(`Cannot use ${what}: beta_fast ${beta_fast} is below beta_slow ${beta_slow}`);
  }
  const { mscale, mscale_all_dim, truncate } = given;
  const notes = noteLength("yarn", factor, original, longest);
  if (given.attention_factor && (mscale || mscale_all_dim)) {
    notes.push(
      `rope_scaling of type "yarn": mscale and mscale_all_dim have no effect beside attention_factor`,
    );
  } else if (!mscale !== !mscale_all_dim) {
    const [one, other] = mscale ? ["mscale", "mscale_all_dim"] : ["mscale_all_dim", "mscale"];
    notes.push(`rope_scaling of type "yarn": ${one} has no effect without ${other}`);
  }
  const attention_factor = given.attention_factor ??
    (mscale && mscale_all_dim
      ? magnitude(factor, mscale) / magnitude(factor, mscale_all_dim)
      : magnitude(factor, 1));
  return {
    rope_scaling: {
      type: "yarn",
      factor,
      original_max_position_embeddings: original,
      beta_fast,
      beta_slow,
      attention_factor,
      ...(truncate === false ? { truncate } : {}),
    },
    notes,
  };
}

/** Peng et al. 2023, YaRN, arXiv:2309.00071, equation 22; `weight` is DeepSeek's. */
function magnitude(factor: number, weight: number): number {
  return factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1;
}

/** @see Ding et al. 2024, LongRoPE, arXiv:2402.13753; the factor of cos and sin is Phi-3's */
function settleLongrope(
  given: z.infer<typeof SCHEMAS.longrope>,
  { max_position_embeddings: longest, rotary_dim, trained }: ScaledModel & { readonly trained: number },
  what: string,
): ParsedScaling {
  const { short_factor, long_factor } = given;
  const pairs = rotary_dim / 2;
  for (const [name, { length }] of Object.entries({ short_factor, long_factor })) {
    if (length === pairs) continue;
    throw new UserError(
      `Cannot use ${what}: ${name} has ${length} numbers, and the model rotates ${pairs} pairs`,
    );
  }
  const original = given.original_max_position_embeddings ?? trained;
  const factor = given.factor ?? Math.max(1, longest / original);
  const attention_factor = given.attention_factor ?? longropeMagnitude(factor, original);
  return {
    rope_scaling: {
      type: "longrope",
      factor,
      original_max_position_embeddings: original,
      short_factor,
      long_factor,
      attention_factor,
    },
    notes: noteLength("longrope", factor, original, longest),
  };
}

/** Phi-3's factor of cos and sin for a context `factor` times as long as the original. */
export function longropeMagnitude(factor: number, original: number): number {
  return factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
}

/** `max_position_embeddings` is the length before the extension in some files, and that after it in others. */
function noteLength(type: string, factor: number, original: number, longest: number): string[] {
  const extended = Math.floor(factor * original);
  if (longest === original || longest === extended) return [];
  return [
    `rope_scaling of type "${type}": factor ${factor} times original_max_position_embeddings ${original} is ` +
    `${extended} tokens, but max_position_embeddings is ${longest}: the factor counts`,
  ];
}
