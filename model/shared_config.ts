/** What `config.json` says of models of every architecture. */
import { z } from "zod";
import { UserError } from "../errors.ts";
import type { RopeScaling } from "./rope_scaling.ts";

/** The keys that every architecture has, checked, with Hugging Face's defaults filled in. */
export interface SharedConfig {
  /** V: tokens of the vocabulary. */
  readonly vocab_size: number;
  /** C: elements of a token's state. */
  readonly hidden_size: number;
  /** F: width of the MLP. */
  readonly intermediate_size: number;
  /** Layers. */
  readonly num_hidden_layers: number;
  /** H: heads of the queries. */
  readonly num_attention_heads: number;
  /** K: heads of keys and values. */
  readonly num_key_value_heads: number;
  /** D: elements of a head. */
  readonly head_dim: number;
  /** Elements of a head, from its first on, that turn with the position. */
  readonly rotary_dim: number;
  /** Tokens that the positions are made for. */
  readonly max_position_embeddings: number;
  /** RoPE base. */
  readonly rope_theta: number;
  /** Scaling of the positions; null: none. */
  readonly rope_scaling: RopeScaling | null;
  /** Whether the head is the table of the embeddings. */
  readonly tie_word_embeddings: boolean;
  /** Most tokens that one sees, itself included; all unless given. */
  readonly sliding_window: number | null;
  /** What the user should know of the file: keys without effect, lengths that disagree; one line each. */
  readonly notes: readonly string[];
  /** The file as it is: `merge` writes it back with what changed. */
  readonly raw: Readonly<Record<string, unknown>>;
}

export const count = z.int().min(1).max(2 ** 24);
export const positive = z.number().positive();

/** `raw` as the schema has it. @throws {UserError} naming `what` and every key that does not fit */
export function checked<T>(schema: z.ZodType<T>, raw: unknown, what: string): T {
  const parsed = schema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path: key, message }) => `${key.join(".")}: ${message}`);
  throw new UserError(`Cannot use ${what}: ${problems.join("; ")}`);
}

/** What of the shape the kernels cannot work with; undefined if nothing. */
export function problemOfShape(config: SharedConfig): string | undefined {
  const {
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim,
    hidden_size,
    intermediate_size,
  } = config;
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
