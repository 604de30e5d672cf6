/** Models that people extend, for planning and measuring without their weights. */
import { UserError } from "../errors.ts";
import { ARCHITECTURES } from "./architectures.ts";
import { parseConfig } from "./config.ts";
import type { ModelConfig } from "./model_config.ts";

const SHAPES: ReadonlyMap<string, Readonly<Record<string, unknown>>> = new Map(
  ARCHITECTURES.flatMap(({ shapes }) => Object.entries(shapes)),
);

/** The names that {@linkcode shapeConfig} knows. */
export const SHAPE_NAMES: readonly string[] = [...SHAPES.keys()];

/**
 * Gives the configuration of a well-known model by its name, such as `llama2-7b`.
 * @throws {UserError} if the name is not known
 */
export function shapeConfig(name: string): ModelConfig {
  const raw = SHAPES.get(name);
  if (!raw) {
    throw new UserError(`Unknown shape "${name}": ${SHAPE_NAMES.join(", ")} are known`, { kind: "usage" });
  }
  return parseConfig(raw, name);
}
