/** Checks that the readers of `config.json` share. */
import { z } from "zod";
import { UserError } from "../errors.ts";

/** A size: a whole number from 1 on. */
export const count = z.int().min(1).max(2 ** 24);
/** Several times what any published model has; more would take memory before anything else is checked. */
export const MOST_LAYERS = 1024;
/** Layers of a model. */
export const layerCount = z.int().min(1).refine((layers) => layers <= MOST_LAYERS, {
  error: ({ input }) => `is ${input}, at most ${MOST_LAYERS} are allowed`,
});
export const positive = z.number().positive();

/** Parses `raw` by the schema. @throws {UserError} naming `what` and every key that does not fit */
export function checked<T>(schema: z.ZodType<T>, raw: unknown, what: string): T {
  const parsed = schema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path: key, message }) => `${key.join(".")}: ${message}`);
  throw new UserError(`Cannot use ${what}: ${problems.join("; ")}`);
}
