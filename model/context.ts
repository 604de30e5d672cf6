/** Which positions a model gets with an adapter: those that it was trained with, or those asked for. */
import { readTrainArgs, type TrainArgsFile } from "../checkpoint/train_args_file.ts";
import { UserError } from "../errors.ts";
import type { ModelConfig } from "./model_config.ts";
import { configForPositions, contextLength, describePositions, type PositionSettings } from "./positions.ts";
import { samePositions } from "./rope_config.ts";

/** Settings of an adapter's training, as far as running or merging it depends on it. */
export interface TrainedSettings extends PositionSettings {
  /** Whether the base was in 4 bits. */
  readonly load_in_4bit: boolean;
}

/**
 * Takes from a run's settings what running or merging its adapter depends on; undefined if they name no length.
 * @throws {UserError} if the length is no whole number above 0
 */
export function trainedSettings({ path, values }: TrainArgsFile): TrainedSettings | undefined {
  const { rope_theta, rope_scaling, load_in_4bit } = values;
  const length = values.model_max_length ?? values.max_seq_length;
  if (length === undefined || length === null) return undefined;
  if (!(typeof length === "number" && Number.isInteger(length) && length > 0)) {
    throw new UserError(
      `Cannot use "${path}": model_max_length must be a whole number above 0, got ${length}`,
    );
  }
  return {
    model_max_length: length,
    rope_theta: typeof rope_theta === "number" ? rope_theta : null,
    rope_scaling: typeof rope_scaling === "object"
      ? rope_scaling as PositionSettings["rope_scaling"] & object | null
      : null,
    load_in_4bit: load_in_4bit === true,
  };
}

/** A model's configuration with its positions settled, and what the user should know about them. */
export interface SettledContext {
  readonly config: ModelConfig;
  /** Settings of the adapter's own training; undefined where there are none. */
  readonly trained: TrainedSettings | undefined;
  /** One line each. */
  readonly notes: readonly string[];
}

/**
 * Settles the positions of a base model, with or without an adapter.
 *
 * @param options.contextSize tokens asked for; the adapter's own unless given
 * @param options.otherwise tokens where neither says anything; the model's own context if undefined
 * @throws {UserError} if the context cannot be extended so far
 */
export async function settleContext(
  base: ModelConfig,
  { peftModel, contextSize, otherwise }: {
    readonly peftModel?: string | null | undefined;
    readonly contextSize?: number | null | undefined;
    readonly otherwise?: number | undefined;
  },
): Promise<SettledContext> {
  const settings = peftModel ? await readTrainArgs(peftModel) : undefined;
  const trained = settings && trainedSettings(settings);
  const own = contextLength(base);
  const wanted = contextSize ?? trained?.model_max_length ?? otherwise ?? own;
  const remedy = `Pass --context_size ${own} to keep the positions as they are, also for longer texts`;
  const config = configForPositions(base, { ...trained, model_max_length: wanted }, remedy);
  const notes: string[] = [...config.notes];
  if (trained) {
    const asTrained = configForPositions(base, trained, remedy);
    if (!samePositions(asTrained, config)) {
      notes.push(
        `The adapter was trained for ${trained.model_max_length} tokens (${
          describePositions(asTrained)
        }), but a context ` +
          `of ${wanted} gives it ${
            describePositions(config)
          }: pass --context_size ${trained.model_max_length}`,
      );
    }
  }
  if (base.rope_scaling?.type === "linear" && wanted !== own && !trained) {
    notes.push(
      wanted < own
        ? `The model is scaled for ${own} tokens by its own config.json (${
          describePositions(base)
        }): this stays so ` +
          `with a context of ${wanted}`
        : `The model's own ${describePositions(base)} (${own} tokens) is replaced by ${
          describePositions(config)
        } for a context of ${wanted}`,
    );
  }
  return { config, trained, notes };
}
