import { quote } from "../text.ts";
import { FILE_LIMITS } from "../data/file_bytes.ts";
import { UserError } from "../errors.ts";
import { join } from "./deps.ts";
import { diskFiles, type Files, readJson } from "./files.ts";
import { fullMatch, isAllLinear, matchesPattern, type ScaleRules, type TargetRules } from "./peft_targets.ts";

/** The parts of PEFT's `adapter_config.json` that decide what an adapter computes; keys as in the file. */
export interface AdapterConfig extends TargetRules, ScaleRules {
  /** LoRA is all that is known. */
  readonly peft_type: "LORA";
  /** "CAUSAL_LM" from training. */
  readonly task_type: string | null;
  /** Path or hub name of the base model. */
  readonly base_model_name_or_path: string | null;
  /** Revision of the base model on the hub. */
  readonly revision: string | null;
  /** Share of the inputs that training leaves out. */
  readonly lora_dropout: number;
  /** Whether a head that is the embedding's table stays so where the adapter brings another embedding. */
  readonly ensure_weight_tying: boolean;
  /** Biases are not trained. */
  readonly bias: "none";
  /** Weights are (outputs, inputs). */
  readonly fan_in_fan_out: false;
  /** PEFT's mark of an adapter that is loaded to run. */
  readonly inference_mode: boolean;
  /** Keys of the file that are not known here and were left out: numbers and words. */
  readonly unknown: readonly string[];
}

/** Arguments of {@linkcode adapterConfig}: the rest has PEFT's defaults. */
export type AdapterOptions =
  & Pick<AdapterConfig, "r" | "lora_alpha" | "target_modules">
  & Partial<Omit<AdapterConfig, "peft_type" | "bias" | "fan_in_fan_out" | "unknown">>;

/** Keys without effect on a trained adapter, of all versions of PEFT. */
const WITHOUT_EFFECT: ReadonlySet<string> = new Set([
  "auto_mapping",
  "peft_version",
  "megatron_core",
  "qalora_group_size",
  "runtime_config",
  // PEFT sets it to false for linears that are no Conv1D, and these architectures have none of those.
  "fan_in_fan_out",
  // How factors began, or gradients were kept: what they are now is in the file.
  "eva_config",
  "corda_config",
  "lora_ga_config",
  "loftq_config",
  "velora_config",
  "merge_weights",
]);

/** Features that change what an adapter computes, and the values under which they are off. */
const UNSUPPORTED: readonly { key: string; off: readonly unknown[]; what: string }[] = [
  { key: "use_dora", off: [false], what: "DoRA" },
  { key: "use_qalora", off: [false], what: "QALoRA" },
  { key: "lora_bias", off: [false], what: "a bias on lora_B" },
  { key: "bias", off: ["none"], what: "trained biases" },
  { key: "layer_replication", off: [], what: "layer replication" },
  { key: "trainable_token_indices", off: [], what: "trained rows of the embedding" },
  { key: "target_parameters", off: [], what: "LoRA on bare parameters" },
  { key: "alora_invocation_tokens", off: [], what: "activated LoRA" },
  { key: "alora_invocation_string", off: [], what: "activated LoRA" },
  { key: "enable_lora", off: [], what: "LoRA on parts of merged linears" },
  { key: "arrow_config", off: [], what: "Arrow routing" },
  { key: "kasa_config", off: [], what: "KaSA" },
  { key: "monteclora_config", off: [], what: "MonteCLoRA" },
  { key: "use_bdlora", off: [false], what: "block-diagonal LoRA" },
  { key: "megatron_config", off: [], what: "Megatron layers" },
];

/** Initialisations that leave the base weights alone. With others, the adapter alone means nothing. */
const KEEPS_BASE: readonly unknown[] = [true, false, "gaussian", "eva", "orthogonal", "mica"];

type Fail = (reason: string) => never;

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

function refuseUnsupported(raw: Readonly<Record<string, unknown>>, fail: Fail): void {
  if (raw.peft_type !== "LORA") {
    fail(`its peft_type is ${quote(raw.peft_type)}, only "LORA" is supported`);
  }
  for (const { key, off, what } of UNSUPPORTED) {
    const value = raw[key];
    if (!isEmpty(value) && !off.includes(value)) {
      fail(`it uses ${what} (${key}: ${quote(value)}), which is not supported`);
    }
  }
  const init = raw.init_lora_weights ?? true;
  if (!KEEPS_BASE.includes(typeof init === "string" ? init.toLowerCase() : init)) {
    fail(
      `init_lora_weights ${
        quote(init)
      } changes the base weights too: convert it to plain LoRA with PEFT first`,
    );
  }
}

/**
 * Checks the keys that nobody knows yet. New features of PEFT are switched on by true, or by settings of their own:
 * those are refused, since the adapter may compute something else with them.
 * @returns the rest of them: numbers and words, which mean nothing here
 */
function unknownKeys(raw: Readonly<Record<string, unknown>>, known: AdapterConfig, fail: Fail): string[] {
  const isKnown = (key: string) =>
    key in known || key === "init_lora_weights" || WITHOUT_EFFECT.has(key) ||
    UNSUPPORTED.some((feature) => feature.key === key);
  const unknown = Object.keys(raw).filter((key) => !isKnown(key) && !isEmpty(raw[key]) && raw[key] !== false);
  for (const key of unknown) {
    if (raw[key] === true || typeof raw[key] === "object") {
      fail(
        `its ${
          quote(key)
        } is not known here, and may change what the adapter computes. Remove it if it does not`,
      );
    }
  }
  return unknown;
}

/** Reads typed values from a raw JSON object, with the key in every error. */
class Fields {
  constructor(readonly raw: Readonly<Record<string, unknown>>, readonly fail: Fail) {}

  number(key: string, initial: number, ok: (value: number) => boolean, wanted: string): number {
    const value = this.raw[key] ?? initial;
    if (typeof value === "number" && ok(value)) return value;
    return this.fail(`${key} must be ${wanted}, got ${quote(value)}`);
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
    return typeof value === "string" ? this.expression(key, value) : this.names(key);
  }

  /** @returns the expression, which can be used */
  expression(
    key: string,
    value: string,
    matches: (module: string, value: string) => unknown = (m, v) => fullMatch(v, m),
  ): string {
    try {
      matches("", value);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      this.fail(`${key} ${quote(value)} cannot be used as a Python regular expression: ${error.message}`);
    }
    return value;
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

  /** One name or several, each an expression. */
  patterns(key: string): readonly string[] | null {
    const value = this.raw[key];
    const names = typeof value === "string" ? (value === "" ? [] : [value]) : this.names(key);
    names?.forEach((name) => this.expression(key, name));
    return names;
  }

  /** A map from expressions for ends of modules' names to numbers. */
  numbers(key: string, ok: (value: number) => boolean, wanted: string): Record<string, number> {
    const value = this.raw[key] ?? {};
    const result: Record<string, number> = Object.create(null);
    if (typeof value !== "object") return this.fail(`${key} must map module names to numbers`);
    for (const [pattern, number] of Object.entries(value as object)) {
      if (typeof number !== "number" || !ok(number)) {
        this.fail(`${key} of ${quote(pattern)} must be ${wanted}`);
      }
      result[this.expression(key, pattern, matchesPattern)] = number;
    }
    return result;
  }
}

/**
 * Reads `adapter_config.json` of an adapter's folder. Keys of newer PEFT versions that change nothing are
 * ignored. Throws a {@linkcode UserError} naming the file and key if a value is of the wrong type or a feature is
 * not supported (DoRA, biases, other kinds of adapter).
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
  const isRank = (value: number) => Number.isSafeInteger(value) && value > 0;
  const isAlpha = (value: number) => value > 0 && value <= Number.MAX_SAFE_INTEGER;
  const config: AdapterConfig = {
    peft_type: "LORA",
    task_type: fields.text("task_type"),
    base_model_name_or_path: fields.text("base_model_name_or_path"),
    revision: fields.text("revision"),
    r: fields.number("r", 8, isRank, "a whole number above 0"),
    lora_alpha: fields.number("lora_alpha", 8, isAlpha, "above 0"),
    lora_dropout: fields.number("lora_dropout", 0, (value) => value >= 0 && value < 1, "from 0 to below 1"),
    target_modules: fields.targets("target_modules"),
    layers_to_transform: fields.layers("layers_to_transform"),
    layers_pattern: fields.patterns("layers_pattern"),
    exclude_modules: fields.targets("exclude_modules"),
    use_rslora: fields.boolean("use_rslora", false),
    rank_pattern: fields.numbers("rank_pattern", isRank, "a whole number above 0"),
    alpha_pattern: fields.numbers("alpha_pattern", isAlpha, "above 0"),
    modules_to_save: fields.names("modules_to_save"),
    ensure_weight_tying: fields.boolean("ensure_weight_tying", false),
    bias: "none",
    fan_in_fan_out: false,
    inference_mode: fields.boolean("inference_mode", true),
    unknown: [],
  };
  const { target_modules: targets, layers_to_transform: layers } = config;
  if (typeof targets === "string" && !isAllLinear(targets) && layers !== null) {
    return fail(
      "it has layers_to_transform beside an expression in target_modules, which PEFT refuses too: say the layers in the expression",
    );
  }
  return { ...config, unknown: unknownKeys(record, config, fail) };
}

/** A config with PEFT's defaults where `options` are silent. */
export function adapterConfig(options: AdapterOptions): AdapterConfig {
  return {
    task_type: "CAUSAL_LM",
    base_model_name_or_path: null,
    revision: null,
    lora_dropout: 0,
    layers_to_transform: null,
    layers_pattern: null,
    exclude_modules: null,
    use_rslora: false,
    rank_pattern: {},
    alpha_pattern: {},
    modules_to_save: null,
    ensure_weight_tying: false,
    inference_mode: true,
    ...options,
    peft_type: "LORA",
    bias: "none",
    fan_in_fan_out: false,
    unknown: [],
  };
}

/** The file's text as PEFT writes it: sorted keys, two spaces; all keys that PEFT 0.10 and later read. */
export function encodeAdapterConfig(
  { exclude_modules, ensure_weight_tying, unknown: _, ...config }: AdapterConfig,
): string {
  const full: Record<string, unknown> = {
    ...config,
    // PEFT before 0.14 does not know the first, before 0.18 the second.
    ...(exclude_modules === null ? {} : { exclude_modules }),
    ...(ensure_weight_tying ? { ensure_weight_tying } : {}),
    auto_mapping: null,
    init_lora_weights: true,
    loftq_config: {},
    megatron_config: null,
    megatron_core: "megatron.core",
    layer_replication: null,
    use_dora: false,
  };
  const sorted = Object.keys(full).sort().map((key) => [key, full[key]]);
  return JSON.stringify(Object.fromEntries(sorted), null, 2) + "\n";
}
