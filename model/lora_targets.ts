/** Choice of the linears that get LoRA, and names by which PEFT finds the same. */
import type { AdapterConfig } from "../checkpoint/peft.ts";
import {
  ALL_LINEAR,
  isNamed,
  isTarget,
  matchesPattern,
  matchesTarget,
  targetNames,
} from "../checkpoint/peft_targets.ts";
import { UserError } from "../errors.ts";
import type { ModelConfig } from "./model_config.ts";
import { checkpointTensors, layoutOf, linearsOf } from "./tensors.ts";

/**
 * Chooses the linears that get LoRA: those that `target_modules` and the layers name, every linear where it is null,
 * without those excluded and those trained whole.
 *
 * @param isWhole whether a module's weight is trained itself
 * @param options.isStrict whether what means nothing in the model is refused; PEFT takes it as long as a linear is left
 * @returns their modules, in the order of the checkpoint
 * @throws {UserError} naming the setting that means nothing in this model, or cannot be used
 */
export function chooseTargets(
  model: ModelConfig,
  config: AdapterConfig,
  isWhole: (module: string) => boolean,
  { isStrict }: { readonly isStrict: boolean },
): string[] {
  const rules = { ...config, target_modules: config.target_modules ?? ALL_LINEAR };
  const linears = [...linearsOf(model).keys()];
  if (isStrict) {
    refuseUnknownTargets(model, rules.target_modules, linears);
    refuseUnknownExclusions(model, config.exclude_modules);
    refuseUnknownLayers(model, config.layers_to_transform);
  }
  const meant = usable("target_modules", () => linears.filter((module) => isTarget(rules, module)));
  const chosen = meant.filter((module) => !isWhole(module));
  if (chosen.length === 0) {
    refuse(
      meant.length > 0
        ? `all of the ${meant.length} linears that target_modules names are trained whole`
        : "together with layers_to_transform, layers_pattern, exclude_modules and modules_to_save, target_modules leaves no linear",
    );
  }
  if (isStrict) {
    refuseUnknownPatterns("rank_pattern", config, chosen);
    refuseUnknownPatterns("alpha_pattern", config, chosen);
  }
  return chosen;
}

/** Gives the settings of an adapter with LoRA on these linears and no others. */
export function settledTargets(
  model: ModelConfig,
  config: AdapterConfig,
  chosen: readonly string[],
): AdapterConfig {
  return {
    ...config,
    target_modules: targetNames(chosen, linearsOf(model).keys()),
    exclude_modules: null,
    layers_to_transform: null,
    layers_pattern: null,
  };
}

function refuseUnknownTargets(
  model: ModelConfig,
  targets: readonly string[] | string,
  linears: readonly string[],
): void {
  if (typeof targets === "string") {
    if (
      targets.toLowerCase() === ALL_LINEAR ||
      usable("target_modules", () => linears.some((m) => isNamed(m, targets)))
    ) return;
    refuse(
      `target_modules "${targets}" is an expression for whole names, and no linear's matches it: ${
        describeLinears(linears)
      }`,
    );
  }
  const unknown = targets.filter((target) => !linears.some((module) => matchesTarget(module, target)));
  if (unknown.length === 0) return;
  const { embeddings, head } = layoutOf(model);
  const isTable = unknown.some((target) => [embeddings, head].some((table) => matchesTarget(table, target)));
  const isExpression = unknown.some((target) => /[^\w.-]/.test(target));
  refuse(
    `"${unknown.join(", ")}": ${describeLinears(linears)}` +
      (isTable ? ". Embeddings and head can be trained whole: name them in modules_to_save" : "") +
      (isExpression ? ". A list holds names; an expression stands alone, as text" : ""),
  );
}

function refuseUnknownExclusions(model: ModelConfig, excluded: AdapterConfig["exclude_modules"]): void {
  if (excluded === null) return;
  const modules = [...checkpointTensors(model).keys()].map((tensor) => tensor.replace(/\.[^.]+$/, "")).concat(
    layoutOf(model).head,
  );
  const unknown = [excluded].flat().find((name) =>
    !usable(
      "exclude_modules",
      () => modules.some((module) => isNamed(module, typeof excluded === "string" ? name : [name])),
    )
  );
  if (unknown === undefined) return;
  const isPart = typeof excluded !== "string" &&
    modules.some((module) => `.${module}.`.includes(`.${unknown}.`));
  refuse(
    `exclude_modules has "${unknown}", but no linear of the model is so named` +
      (isPart ? `. For all within it, give an expression: ".*${unknown}.*"` : ""),
  );
}

function refuseUnknownLayers(
  { num_hidden_layers: layers }: ModelConfig,
  wanted: readonly number[] | null,
): void {
  const unknown = wanted?.find((layer) => layer >= layers);
  if (unknown !== undefined) {
    refuse(`layers_to_transform has ${unknown}, but the model's layers are 0 to ${layers - 1}`);
  }
}

function refuseUnknownPatterns(
  option: "rank_pattern" | "alpha_pattern",
  config: AdapterConfig,
  chosen: readonly string[],
): void {
  const unknown = Object.keys(config[option]).find((key) =>
    !usable(option, () => chosen.some((module) => matchesPattern(module, key)))
  );
  if (unknown !== undefined) {
    refuse(`${option} has "${unknown}", which is the end of no name of a linear with LoRA`);
  }
}

function describeLinears(linears: readonly string[]): string {
  const names = [...new Set(linears.map((module) => module.split(".").at(-1)))].join(", ");
  return `the model's linears are ${names}, in whole "${linears[0]}" and so on`;
}

/** Checks the result of `match`. @throws {UserError} if an expression in it cannot be used */
function usable<T>(option: string, match: () => T): T {
  try {
    return match();
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return refuse(`${option} cannot be used as a Python regular expression: ${error.message}`);
  }
}

function refuse(reason: string): never {
  throw new UserError(`Cannot put LoRA on the model: ${reason}`, { kind: "usage" });
}
