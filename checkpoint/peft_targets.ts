/** Which modules a PEFT config means: names, ends of names, words and Python's regular expressions. */
import { quote } from "../text.ts";
import { UserError } from "../errors.ts";
import { compilePythonRegex } from "./python_regex.ts";

/** The keys of `adapter_config.json` that decide which linears have LoRA. */
export interface TargetRules {
  /**
   * Names of linears, or ends of names after a dot; else one Python regular expression for whole names, or
   * "all-linear". Null: PEFT's default.
   */
  readonly target_modules: readonly string[] | string | null;
  /** Numbers of the layers that have LoRA; null or none: all. */
  readonly layers_to_transform: readonly number[] | null;
  /** Names before the number of a layer; null or none: anything. */
  readonly layers_pattern: readonly string[] | null;
  /** Linears without LoRA though they are targets, as those are named. */
  readonly exclude_modules: readonly string[] | string | null;
  /** Modules that are trained whole, and saved so. */
  readonly modules_to_save: readonly string[] | null;
}

/** The keys that decide the rank and the scale of each pair. */
export interface ScaleRules {
  /** Rank. */
  readonly r: number;
  /** The update is scaled by alpha / r. */
  readonly lora_alpha: number;
  /** Scale by alpha / sqrt(r) instead. */
  readonly use_rslora: boolean;
  /** Ranks and alphas that differ, by regular expressions for the end of a module's name; the first counts. */
  readonly rank_pattern: Readonly<Record<string, number>>;
  /** Alphas that differ, in the same way. */
  readonly alpha_pattern: Readonly<Record<string, number>>;
}

/** PEFT's word for every linear but the head. */
export const ALL_LINEAR = "all-linear";

const compiled = new Map<string, (text: string) => boolean>();

/**
 * `re.fullmatch` of an expression, which is compiled once.
 * @throws {SyntaxError} if it cannot be
 * @throws {UserError} if matching takes too long
 */
export function fullMatch(expression: string, name: string): boolean {
  const matches = compiled.get(expression) ?? compilePythonRegex(expression);
  compiled.set(expression, matches);
  try {
    return matches(name);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new UserError(
      `Cannot match the expression ${quote(expression)} with ${
        quote(name)
      }: ${cause.message}. Write a simpler one`,
      { cause },
    );
  }
}

/** Whether a target is the word for every linear; PEFT takes it in any case. */
export function isAllLinear(targets: TargetRules["target_modules"]): boolean {
  return typeof targets === "string" && targets.toLowerCase() === ALL_LINEAR;
}

/** PEFT's rule for a list of targets: the whole name, or its end after a dot. */
export function matchesTarget(module: string, target: string): boolean {
  return module === target || module.endsWith(`.${target}`);
}

/** Whether a module is named by a list, or by an expression for its whole name. */
export function isNamed(module: string, names: readonly string[] | string): boolean {
  return typeof names === "string"
    ? fullMatch(names, module)
    : names.some((name) => matchesTarget(module, name));
}

/** Whether PEFT trains a module whole by this name: the module, or one that it is part of, ends so. */
export function isSavedWhole(module: string, name: string): boolean {
  const parts = module.split(".");
  return parts.some((_, i) => parts.slice(0, i + 1).join(".").endsWith(name));
}

/**
 * Whether PEFT puts LoRA on a linear of a model.
 * @returns undefined where `target_modules` is null: PEFT then goes by a list for the architecture
 */
export function isTarget(rules: TargetRules, module: string): boolean | undefined {
  const { target_modules: targets, exclude_modules: excluded, modules_to_save: whole } = rules;
  if (excluded !== null && isNamed(module, excluded)) return false;
  if (whole?.some((name) => `.${module}.`.includes(`.${name}.`))) return false;
  if (targets === null) return undefined;
  // The head is in no layer.
  if (isAllLinear(targets)) return layerOf(rules, module) !== undefined && isOfLayers(rules, module);
  if (typeof targets === "string") return fullMatch(targets, module);
  return targets.includes(module) ||
    (targets.some((target) => matchesTarget(module, target)) && isOfLayers(rules, module));
}

function isOfLayers(rules: TargetRules, module: string): boolean {
  const { layers_to_transform: layers } = rules;
  return layers === null || layers.length === 0 || layers.includes(layerOf(rules, module) ?? -1);
}

/** Number of the layer that a module is of; `layers_pattern` says what comes before it. */
function layerOf({ layers_pattern: patterns }: TargetRules, module: string): number | undefined {
  const parts = module.split(".");
  for (let at = parts.length - 2; at >= 2; at--) {
    if (!/^\d+$/.test(parts[at]!)) continue;
    const before = parts.slice(0, at).join(".");
    if (!patterns?.length || patterns.some((pattern) => fullMatch(`.*\\.(${pattern})`, before))) {
      return Number(parts[at]);
    }
  }
  return undefined;
}

/** Whether a key of `rank_pattern` or `alpha_pattern` means a module. */
export function matchesPattern(module: string, key: string): boolean {
  return fullMatch(`(.*\\.)?(${key})`, module);
}

/** The value of the first pattern that means a module. */
function byPattern(patterns: Readonly<Record<string, number>>, module: string): number | undefined {
  const match = Object.keys(patterns).find((key) => matchesPattern(module, key));
  return match === undefined ? undefined : patterns[match];
}

/** Rank of the pair on this module. */
export function loraRank(config: Pick<ScaleRules, "r" | "rank_pattern">, module: string): number {
  return byPattern(config.rank_pattern, module) ?? config.r;
}

/** Scale of B A x in this module: alpha / r, or alpha / sqrt(r) with rslora. */
export function loraScaling(config: ScaleRules, module: string): number {
  const alpha = byPattern(config.alpha_pattern, module) ?? config.lora_alpha;
  const rank = loraRank(config, module);
  return alpha / (config.use_rslora ? Math.sqrt(rank) : rank);
}

/**
 * Names by which PEFT finds exactly these modules among all: last parts of names where every module with that last part
 * is meant, else whole names.
 */
export function targetNames(modules: Iterable<string>, all: Iterable<string>): string[] {
  const meant = new Set(modules);
  const lastPart = (module: string) => module.split(".").at(-1)!;
  const ambiguous = new Set([...all].filter((module) => !meant.has(module)).map(lastPart));
  const names = [...meant].map((module) => ambiguous.has(lastPart(module)) ? module : lastPart(module));
  return [...new Set(names)].sort();
}
