import { z } from "zod";
import { UserError } from "../errors.ts";
import { checked, count, positive } from "./shared_config.ts";

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
  const check = <T>(schema: z.ZodType<T>): T =>
    checked(schema, raw, `"${path}": rope_scaling of type ${JSON.stringify(type)}`);
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
