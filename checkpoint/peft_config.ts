import { FILE_LIMITS } from "../data/file_bytes.ts";
import { quoted, UserError } from "../errors.ts";
import { join } from "./deps.ts";
import { diskFiles, type Files, readJson } from "./files.ts";
import { quote } from "./paths.ts";

/** The parts of PEFT's `adapter_config.json` that decide what an adapter computes; keys as in the file. */
export interface AdapterConfig {
  readonly peft_type: "LORA";
  readonly task_type: string | null;
  readonly base_model_name_or_path: string | null;
  readonly revision: string | null;
  readonly r: number;
  readonly lora_alpha: number;
  readonly lora_dropout: number;
  /** Names of linears (last parts or whole), a regular expression, or "all-linear". Null: PEFT's default. */
  readonly target_modules: readonly string[] | string | null;
  /** Numbers of the layers that have LoRA; null: all. */
  readonly layers_to_transform: readonly number[] | null;
  /** Linears without LoRA though they are targets, as those are named. */
  readonly exclude_modules: readonly string[] | string | null;
  readonly use_rslora: boolean;
  /** Ranks and alphas that differ, by the end of the module's name. */
  readonly rank_pattern: Readonly<Record<string, number>>;
  readonly alpha_pattern: Readonly<Record<string, number>>;
  readonly modules_to_save: readonly string[] | null;
  readonly bias: "none";
  readonly fan_in_fan_out: false;
  readonly inference_mode: boolean;
}

/** What {@linkcode adapterConfig} needs: the rest has PEFT's defaults. */
export type AdapterOptions =
  & Pick<AdapterConfig, "r" | "lora_alpha" | "target_modules">
  & Partial<Omit<AdapterConfig, "peft_type" | "bias" | "fan_in_fan_out">>;

/** Features that change what an adapter computes, and the values under which they are off. */
const UNSUPPORTED: readonly { key: string; off: readonly unknown[]; what: string }[] = [
  { key: "use_dora", off: [false], what: "DoRA" },
  { key: "use_qalora", off: [false], what: "QALoRA" },
  { key: "lora_bias", off: [false], what: "a bias on lora_B" },
  { key: "bias", off: ["none"], what: "trained biases" },
  { key: "fan_in_fan_out", off: [false], what: "transposed weights" },
  { key: "layer_replication", off: [], what: "layer replication" },
  { key: "trainable_token_indices", off: [], what: "trained rows of the embedding" },
  { key: "target_parameters", off: [], what: "LoRA on bare parameters" },
  { key: "alora_invocation_tokens", off: [], what: "activated LoRA" },
  { key: "arrow_config", off: [], what: "Arrow routing" },
  { key: "kasa_config", off: [], what: "KaSA" },
  { key: "monteclora_config", off: [], what: "MonteCLoRA" },
  { key: "use_bdlora", off: [false], what: "block-diagonal LoRA" },
  { key: "megatron_config", off: [], what: "Megatron layers" },
];

/** Initialisations that also change the base weights: without those, the adapter alone means nothing. */
const CHANGES_BASE = /^(pissa|olora|corda|loftq|lora_ga)/i;

type Fail = (reason: string) => never;

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

function refuseUnsupported(raw: Readonly<Record<string, unknown>>, fail: Fail): void {
  if (raw.peft_type !== "LORA") {
    fail(`its peft_type is ${quoted(raw.peft_type)}, only "LORA" is supported`);
  }
  for (const { key, off, what } of UNSUPPORTED) {
    const value = raw[key];
    if (!isEmpty(value) && !off.includes(value)) {
      fail(`it uses ${what} (${key}: ${quoted(value)}), which is not supported`);
    }
  }
  const init = raw.init_lora_weights;
  if (typeof init === "string" && CHANGES_BASE.test(init)) {
    fail(
      `init_lora_weights ${
        quote(init)
      } changes the base weights too: convert it to plain LoRA with PEFT first`,
    );
  }
}

/** Reads typed values from a raw JSON object, with the key in every error. */
class Fields {
  constructor(readonly raw: Readonly<Record<string, unknown>>, readonly fail: Fail) {}

  number(key: string, initial: number, ok: (value: number) => boolean, wanted: string): number {
    const value = this.raw[key] ?? initial;
    if (typeof value === "number" && ok(value)) return value;
    return this.fail(`${key} must be ${wanted}, got ${quoted(value)}`);
  }

  boolean(key: string, initial: boolean): boolean {
    const value = this.raw[key] ?? initial;
    return typeof value === "boolean" ? value : this.fail(`${key} must be true or false`);
  }

  text(key: string): string | null {
    const value = this.raw[key] ?? null;
    return value === null || typeof value === "string" ? value : this.fail(`${key} must be text`);
  }

  /** Names, or a regular expression. */
  targets(key: string): readonly string[] | string | null {
    const value = this.raw[key];
    return typeof value === "string" ? value : this.names(key);
  }

  /** One layer's number or several. */
  layers(key: string): readonly number[] | null {
    const value = this.raw[key] ?? null;
    if (value === null) return null;
    const layers: unknown[] = [value].flat();
    return layers.every(Number.isInteger)
      ? layers as number[]
      : this.fail(`${key} must be a layer's number or a list of them`);
  }

  names(key: string): readonly string[] | null {
    const value = this.raw[key] ?? null;
    if (value === null) return null;
    const isNames = Array.isArray(value) && value.every((item) => typeof item === "string");
    return isNames ? value : this.fail(`${key} must be a list of names`);
  }

  /** A map from plain module names to numbers. Patterns come from others: as expressions they could hang. */
  numbers(key: string): Record<string, number> {
    const value = this.raw[key] ?? {};
    const result: Record<string, number> = Object.create(null);
    if (typeof value !== "object") return this.fail(`${key} must map module names to numbers`);
    for (const [pattern, number] of Object.entries(value as object)) {
      if (typeof number !== "number" || !(number > 0)) {
        this.fail(`${key} of ${quote(pattern)} must be above 0`);
      }
      const name = pattern.replace(/^\^/, "").replace(/\$$/, "").replaceAll("\\.", ".");
      if (!/^[\w.-]+$/.test(name)) {
        this.fail(`${key} has the expression ${quote(pattern)}: only names are supported`);
      }
      result[name] = number;
    }
    return result;
  }
}

/**
 * Reads `adapter_config.json` of an adapter's folder. Keys of newer PEFT versions that change nothing are
 * ignored. Throws a {@linkcode UserError} naming the file and key if a value is of the wrong type or a feature is
 * not supported (DoRA, biases, transposed weights, other kinds of adapter).
 */
export async function readAdapterConfig(folder: string, files: Files = diskFiles): Promise<AdapterConfig> {
  const path = join(folder, "adapter_config.json");
  const fail: Fail = (reason) => {
    throw new UserError(`Cannot load "${path}": ${reason}`);
  };
  const raw = await readJson(path, FILE_LIMITS.adapterConfig, files);
  if (typeof raw !== "object" || raw === null || Array.isArray(raw)) return fail("it is no JSON object");
  const record = raw as Record<string, unknown>;
  refuseUnsupported(record, fail);
  const fields = new Fields(record, fail);
  const isRank = (value: number) => Number.isInteger(value) && value > 0;
  return {
    peft_type: "LORA",
    task_type: fields.text("task_type"),
    base_model_name_or_path: fields.text("base_model_name_or_path"),
    revision: fields.text("revision"),
    r: fields.number("r", 8, isRank, "a whole number above 0"),
    lora_alpha: fields.number("lora_alpha", 8, (value) => value > 0, "above 0"),
    lora_dropout: fields.number("lora_dropout", 0, (value) => value >= 0 && value < 1, "from 0 to below 1"),
    target_modules: fields.targets("target_modules"),
    layers_to_transform: fields.layers("layers_to_transform"),
    exclude_modules: fields.targets("exclude_modules"),
    use_rslora: fields.boolean("use_rslora", false),
    rank_pattern: fields.numbers("rank_pattern"),
    alpha_pattern: fields.numbers("alpha_pattern"),
    modules_to_save: fields.names("modules_to_save"),
    bias: "none",
    fan_in_fan_out: false,
    inference_mode: fields.boolean("inference_mode", true),
  };
}

/** A config with PEFT's defaults where `options` are silent. */
export function adapterConfig(options: AdapterOptions): AdapterConfig {
  return {
    task_type: "CAUSAL_LM",
    base_model_name_or_path: null,
    revision: null,
    lora_dropout: 0,
    layers_to_transform: null,
    exclude_modules: null,
    use_rslora: false,
    rank_pattern: {},
    alpha_pattern: {},
    modules_to_save: null,
    inference_mode: true,
    ...options,
    peft_type: "LORA",
    bias: "none",
    fan_in_fan_out: false,
  };
}

/** The file's text as PEFT writes it: sorted keys, two spaces; all keys that PEFT 0.10 and later read. */
export function encodeAdapterConfig({ exclude_modules, ...config }: AdapterConfig): string {
  const full: Record<string, unknown> = {
    ...config,
    // PEFT before 0.14 does not know it.
    ...(exclude_modules === null ? {} : { exclude_modules }),
    auto_mapping: null,
    init_lora_weights: true,
    layers_pattern: null,
    loftq_config: {},
    megatron_config: null,
    megatron_core: "megatron.core",
    layer_replication: null,
    use_dora: false,
  };
  const sorted = Object.keys(full).sort().map((key) => [key, full[key]]);
  return JSON.stringify(Object.fromEntries(sorted), null, 2) + "\n";
}

/** PEFT's rule for a list of targets: the whole name, or its end after a dot. */
export function matchesTarget(module: string, target: string): boolean {
  return module === target || module.endsWith(`.${target}`);
}

/**
 * Whether PEFT puts LoRA on a linear of a model.
 * @returns undefined where that takes a regular expression to know
 */
export function isTarget(
  { target_modules: targets, exclude_modules: excluded, layers_to_transform: layers }: AdapterConfig,
  module: string,
): boolean | undefined {
  if (!Array.isArray(targets) || typeof excluded === "string") return undefined;
  const isOfLayer = layers === null || layers.includes(Number(/\.(\d+)\./.exec(module)?.[1]));
  return isOfLayer && targets.some((target) => matchesTarget(module, target)) &&
    !excluded?.some((target) => matchesTarget(module, target));
}

/** The value whose pattern is the end of a module's name (whole parts only); as PEFT, the first that fits. */
function byPattern(patterns: Readonly<Record<string, number>>, moduleName: string): number | undefined {
  const match = Object.keys(patterns).find((name) => matchesTarget(moduleName, name));
  return match === undefined ? undefined : patterns[match];
}

/** Rank of the pair on this module. */
export function loraRank(config: AdapterConfig, moduleName: string): number {
  return byPattern(config.rank_pattern, moduleName) ?? config.r;
}

/** What B A x is multiplied with: alpha / r, or alpha / sqrt(r) with rslora, of this module. */
export function loraScaling(config: AdapterConfig, moduleName: string): number {
  const alpha = byPattern(config.alpha_pattern, moduleName) ?? config.lora_alpha;
  const rank = loraRank(config, moduleName);
  return alpha / (config.use_rslora ? Math.sqrt(rank) : rank);
}
