/** Reads the positions of `config.json`: in the form of transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`). */
import { z } from "zod";
import { UserError } from "../errors.ts";
import { parseRopeScaling } from "./rope_scaling.ts";
import { count, positive } from "./checked.ts";
import type { Rope } from "./model_config.ts";

const MAP = z.looseObject({
  rope_theta: positive.nullish(),
  partial_rotary_factor: positive.max(1).nullish(),
});

/** The keys of positions that all architectures share. */
export const ROPE_KEYS = {
  rope_theta: positive.nullish(),
  rope_scaling: MAP.nullish(),
  rope_parameters: MAP.nullish(),
  partial_rotary_factor: positive.max(1).nullish(),
  original_max_position_embeddings: count.nullish(),
} as const;

const SCHEMA = z.object(ROPE_KEYS);

type RopeKeys = z.infer<typeof SCHEMA>;

/** A model's positions, and what the user should know of them. */
export interface ParsedRope extends Rope {
  readonly notes: readonly string[];
}

/**
 * Reads them as transformers 5 does: `rope_scaling`, where there is one, in place of `rope_parameters`, and what a map
 * does not say from the keys beside it.
 *
 * @param keys checked; `rope_theta` and `partial_rotary_factor` under whatever names the architecture has for them
 * @throws {UserError} if a type or key is not known, or two places disagree
 */
export function parseRope(
  keys: RopeKeys,
  model: {
    readonly head_dim: number;
    readonly max_position_embeddings: number;
    readonly share: number;
    /** `rope_theta` where none is given; 10000 unless given. */
    readonly theta?: number | undefined;
  },
  path: string,
): ParsedRope {
  const map = mapOf(keys.rope_scaling) ?? mapOf(keys.rope_parameters);
  const read = (given: typeof map): ParsedRope => {
    const rotary_dim = Math.floor(
      model.head_dim * (given?.partial_rotary_factor ?? keys.partial_rotary_factor ?? model.share),
    );
    const { map: settled, notes } = withOriginal(given, keys.original_max_position_embeddings);
    const scaling = parseRopeScaling(settled ?? null, { ...model, rotary_dim }, path);
    if (given?.rope_theta && keys.rope_theta && given.rope_theta !== keys.rope_theta) {
      notes.push(
        `rope_theta is ${keys.rope_theta} in config.json and ${given.rope_theta} within its positions: ` +
          `${given.rope_theta} counts, as in transformers 5`,
      );
    }
    const rope_theta = given?.rope_theta ?? keys.rope_theta ?? model.theta ?? 10000;
    return {
      rope_theta,
      rotary_dim,
      rope_scaling: scaling.rope_scaling,
      notes: [...notes, ...scaling.notes],
    };
  };
  const rope = read(map);
  const other = map === mapOf(keys.rope_scaling) ? mapOf(keys.rope_parameters) : undefined;
  if (other && !samePositions(read(other), rope)) {
    throw new UserError(
      `Cannot use "${path}": its rope_scaling and its rope_parameters say different things. Keep one of them: ` +
        `rope_parameters is the form of transformers 5, and has the keys of rope_scaling and rope_theta`,
    );
  }
  return rope;
}

/** Tells whether two models rotate by the same angles, as far as the maps say. */
export function samePositions(
  a: Rope,
  b: Rope,
): boolean {
  return a.rope_theta === b.rope_theta && a.rotary_dim === b.rotary_dim &&
    JSON.stringify(a.rope_scaling) === JSON.stringify(b.rope_scaling);
}

/** Types that count from the length before the extension. */
const FROM_ORIGINAL = ["llama3", "yarn", "longrope", "su"];

/** The map with the `original_max_position_embeddings` beside it, as Phi-3 has it: transformers 5 prefers that one. */
function withOriginal(map: ReturnType<typeof mapOf>, beside: number | null | undefined) {
  if (!map || !beside || !FROM_ORIGINAL.includes(String(map.rope_type ?? map.type))) {
    return { map, notes: [] as string[] };
  }
  const inside = map.original_max_position_embeddings ?? beside;
  const notes = inside === beside ? [] : [
    `original_max_position_embeddings is ${beside} in config.json and ${inside} within its positions: ${beside} ` +
    `counts, as in transformers 5`,
  ];
  return { map: { ...map, original_max_position_embeddings: beside }, notes };
}

/** An empty map says nothing. */
function mapOf(map: RopeKeys["rope_scaling"]): z.infer<typeof MAP> | undefined {
  return map && Object.keys(map).length > 0 ? map : undefined;
}
