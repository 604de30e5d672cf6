/** LoRA as the settings have it: fresh factors, an adapter's own settings, tensors that are trained whole. */
import { type AdapterConfig, adapterConfig, readAdapterConfig } from "../checkpoint/peft.ts";
import { isSavedWhole } from "../checkpoint/peft_targets.ts";
import { UserError } from "../errors.ts";
import { addLora } from "../model/lora.ts";
import type { ModelConfig } from "../model/model_config.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { checkpointTensors, layoutOf } from "../model/tensors.ts";
import { LORA_OPTIONS } from "../train_args/rules.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import type { WeightsFolder } from "./inputs.ts";

/** Puts the LoRA factors that the settings ask for on a model. @returns the content of its adapter_config.json */
export function addFreshLora(model: LanguageModel, args: TrainArgs): AdapterConfig {
  const config = adapterConfig({
    base_model_name_or_path: args.model_name_or_path,
    r: args.lora_rank,
    lora_alpha: args.lora_alpha,
    lora_dropout: args.lora_dropout,
    use_rslora: args.use_rslora,
    target_modules: args.target_modules,
    exclude_modules: args.exclude_modules,
    layers_to_transform: args.layers_to_transform,
    layers_pattern: args.layers_pattern,
    rank_pattern: args.rank_pattern ?? {},
    alpha_pattern: args.alpha_pattern ?? {},
    modules_to_save: args.modules_to_save,
  });
  // A plan puts fresh factors where an adapter has its own.
  return addLora(model, config, args.seed, { isStrict: args.adapter_name_or_path === null });
}

/** Settings with an adapter's own in place of those that the run asked for, and a line about it where they differ. */
export interface SettledArgs {
  readonly args: TrainArgs;
  readonly notes: readonly string[];
}

/**
 * Replaces the settings of LoRA by those of the adapter that a run goes on from: as with PEFT, its own count.
 *
 * @param place the adapter's
 * @throws {UserError} if its adapter_config.json cannot be used
 */
export async function withAdapterSettings(
  args: TrainArgs,
  { path, files }: WeightsFolder,
): Promise<SettledArgs> {
  const config = await readAdapterConfig(path, files);
  const some = <T extends object>(value: T | null): T | null =>
    value !== null && Object.keys(value).length > 0 ? value : null;
  const own: Pick<TrainArgs, typeof LORA_OPTIONS[number]> = {
    lora_rank: config.r,
    lora_alpha: config.lora_alpha,
    lora_dropout: config.lora_dropout,
    use_rslora: config.use_rslora,
    target_modules: config.target_modules,
    exclude_modules: config.exclude_modules,
    layers_to_transform: some(config.layers_to_transform),
    layers_pattern: some(config.layers_pattern),
    rank_pattern: some({ ...config.rank_pattern }),
    alpha_pattern: some({ ...config.alpha_pattern }),
  };
  const differs = (name: keyof typeof own) =>
    args[name] !== null && JSON.stringify(args[name]) !== JSON.stringify(own[name]);
  const changes = LORA_OPTIONS.filter(differs).map((name) =>
    `${name} ${inWords(own[name])}, not ${inWords(args[name])}`
  );
  const notes = changes.length === 0 ? [] : [
    `The adapter's own settings count, those of this run have no effect: ${changes.join("; ")}. ` +
    `For others, merge the adapter and train a fresh one`,
  ];
  return { args: { ...args, ...own }, notes };
}

function inWords(value: unknown): string {
  if (value === null) return "none";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/**
 * Tells which tensors of the checkpoint are trained whole.
 * @throws {UserError} if `trainable_params` has a part that is in no name, `modules_to_save` the end of none, or
 * `resize_vocabulary` is set and the embeddings are not trained
 */
export function trainedNames(config: ModelConfig, args: TrainArgs): (name: string) => boolean {
  if (!args.low_rank_training) return () => true;
  const parts = [...args.trainable_params ?? []];
  const { embeddings, head } = layoutOf(config);
  if (args.train_embedding) parts.push(embeddings, head);
  if (args.train_norm) parts.push("norm");
  const names = [...checkpointTensors(config).keys()];
  for (const part of args.trainable_params ?? []) {
    if (names.some((name) => name.includes(part))) continue;
    throw new UserError(`trainable_params: no weight of the model has "${part}" in its name`, {
      kind: "usage",
    });
  }
  // A head that is the embedding has no tensor of its own: it is trained with that one.
  const tied = config.tie_word_embeddings ? { [`${head}.weight`]: `${embeddings}.weight` } : {};
  const modules: ReadonlyMap<string, string> = new Map([
    ...names.map((name): [string, string] => [name, name]),
    ...Object.entries(tied),
  ]);
  const saved = new Set<string>();
  for (const module of args.modules_to_save ?? []) {
    const found = [...modules].filter(([name]) => isSavedWhole(name.replace(/\.[^.]+$/, ""), module));
    if (found.length === 0) {
      throw new UserError(`modules_to_save: no module of the model has a name that ends in "${module}"`, {
        kind: "usage",
      });
    }
    found.forEach(([, tensor]) => saved.add(tensor));
  }
  const isTrained = (name: string) => saved.has(name) || parts.some((part) => name.includes(part));
  if (args.resize_vocabulary && !isTrained(`${embeddings}.weight`)) {
    throw new UserError(
      "resize_vocabulary: needs trainable_params: embed, or new tokens would neither be learnt nor saved",
      { kind: "usage" },
    );
  }
  return isTrained;
}
