/** `generation_config.json`: how a model's makers have it write. */
import { exists } from "../checkpoint/files.ts";
import { FILE_LIMITS, readWholeText } from "../data/file_bytes.ts";
import { UserError } from "../errors.ts";
import type { Sampling } from "../kernels/sample/sample.ts";
import { quote } from "../text.ts";

/** Settings of the file that writing depends on. */
export interface GenerationConfig {
  /** Tokens that end a text. */
  readonly stopIds: readonly number[];
  /** Settings of sampling that it gives. */
  readonly sampling: Partial<Omit<Sampling, "seed">>;
}

/** Hugging Face's names of the sampling's settings, and what each may be. */
const SAMPLING = [
  ["temperature", "temperature", (value: number) => value >= 0],
  ["top_k", "topK", (value: number) => Number.isInteger(value) && value >= 0],
  ["top_p", "topP", (value: number) => value >= 0 && value <= 1],
  ["min_p", "minP", (value: number) => value >= 0 && value <= 1],
  ["repetition_penalty", "repetitionPenalty", (value: number) => value > 0],
] as const;

/**
 * Reads a model folder's `generation_config.json`; without one nothing is set. `do_sample: false` is greedy.
 * @throws {UserError} naming the key whose value cannot be used
 */
export async function readGenerationConfig(folder: string): Promise<GenerationConfig> {
  const path = `${folder}/generation_config.json`;
  if (!await exists(path)) return { stopIds: [], sampling: {} };
  const refuse = (what: string) => new UserError(`Cannot use "${path}": ${what}`);
  let raw: Record<string, unknown>;
  try {
    raw = JSON.parse(await readWholeText(path, FILE_LIMITS.config));
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw refuse(`it is not JSON (${cause.message})`);
  }
  const stopIds = [raw.eos_token_id ?? []].flat();
  if (!stopIds.every((id): id is number => Number.isInteger(id))) {
    throw refuse(`eos_token_id must be a token id or a list of them, got ${quote(raw.eos_token_id)}`);
  }
  const sampling: Record<string, number> = {};
  for (const [key, name, isValid] of SAMPLING) {
    const value = raw[key] ?? undefined;
    if (value === undefined) continue;
    if (typeof value !== "number" || !isValid(value)) throw refuse(`${key} is ${quote(value)}`);
    sampling[name] = value;
  }
  return { stopIds, sampling: raw.do_sample === false ? { ...sampling, temperature: 0 } : sampling };
}
