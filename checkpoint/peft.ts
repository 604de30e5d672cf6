import { UserError } from "../errors.ts";
import { join } from "./deps.ts";
import { assertFinite, type Dtype, type FloatDtype, fromF32, toF32 } from "./dtype.ts";
import { diskFiles, exists, fileError, type Files, writeWhole } from "./files.ts";
import { quote } from "./paths.ts";
import { type AdapterConfig, encodeAdapterConfig, loraRank, readAdapterConfig } from "./peft_config.ts";
import { type TensorSource, writeSafetensors } from "./safetensors.ts";
import { openWeightsFile, type WeightReader } from "./weights.ts";

export {
  type AdapterConfig,
  adapterConfig,
  type AdapterOptions,
  isTarget,
  loraRank,
  loraScaling,
  matchesTarget,
  readAdapterConfig,
} from "./peft_config.ts";

/** Values in row-major order. */
export interface TensorF32 {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** The two factors on a linear of N outputs and K inputs: y += scaling * B A x. */
export interface LoraPair {
  /** (r, K) */
  readonly A: TensorF32;
  /** (N, r) */
  readonly B: TensorF32;
}

/** A tensor that replaces one of the base model; `dtype` is the type it was stored in. */
export interface ExtraTensor extends TensorF32 {
  readonly dtype: Dtype;
}

/** A PEFT LoRA adapter, with everything trained besides. */
export interface Adapter {
  readonly config: AdapterConfig;
  /** By module as the base checkpoint names it: "model.layers.0.self_attn.q_proj". */
  readonly lora: ReadonlyMap<string, LoraPair>;
  /** By tensor as the base checkpoint names it: "model.embed_tokens.weight". */
  readonly extra: ReadonlyMap<string, ExtraTensor>;
}

const PREFIX = "base_model.model.";
const ADAPTER_FILES = ["adapter_model.safetensors", "adapter_model.bin"] as const;
const EXTRA_FILES = ["trainable_params.safetensors", "trainable_params.bin"] as const;
const FLOATS: readonly Dtype[] = ["F64", "F32", "F16", "BF16"];

/** What a key of an adapter's file means. */
type Role =
  | { readonly kind: "A" | "B"; readonly module: string }
  | { readonly kind: "extra"; readonly tensor: string }
  | { readonly kind: "ignored" };

type Fail = (reason: string) => never;

/** A key as the base model has it. */
export function withoutPrefix(key: string): string {
  return key.startsWith(PREFIX) ? key.slice(PREFIX.length) : key;
}

/**
 * Reads a key in any of the forms PEFT, LongLoRA and LongQLoRA write: with or without the prefix, the adapter's name
 * or the `modules_to_save` marker.
 */
function parseKey(key: string, fail: Fail): Role {
  const name = withoutPrefix(key);
  const factor = /^(.+)\.lora_([AB])(?:\.[^.]+)?\.weight$/.exec(name);
  if (factor) return { kind: factor[2] as "A" | "B", module: factor[1]! };
  if (name.includes("lora_embedding_")) {
    return fail(`${quote(key)} is LoRA on an embedding, which is not supported`);
  }
  if (name.includes("lora_magnitude_vector")) {
    return fail(`${quote(key)} belongs to DoRA, which is not supported`);
  }
  if (name.includes("lora_")) return fail(`${quote(key)} is no tensor of plain LoRA`);
  // The base model's own values, which modules_to_save keeps beside the trained ones.
  if (name.includes(".original_module.")) return { kind: "ignored" };
  const tensor = name
    .replace(/\.modules_to_save\.[^.]+\./, ".")
    .replace(".base_layer.", ".")
    // LongLoRA's 4-bit script wraps the head, which renames it.
    .replace(/^lm_head\.0\./, "lm_head.");
  if (!/\.(weight|bias)$/.test(tensor)) return fail(`${quote(key)} is no weight of a module`);
  return { kind: "extra", tensor };
}

async function readFloats(reader: WeightReader, key: string, path: string, fail: Fail): Promise<ExtraTensor> {
  const { dtype, shape } = reader.info(key);
  if (!FLOATS.includes(dtype)) fail(`${quote(key)} is of type ${dtype}, not floating point`);
  if (shape.includes(0)) {
    fail(
      `${
        quote(key)
      } is empty, shape [${shape}]. It was probably saved by ZeRO-3 without gathering the weights`,
    );
  }
  const data = toF32(await reader.read(key), dtype);
  assertFinite(key, data, { where: path });
  return { shape, dtype, data };
}

interface Parts {
  readonly A: Map<string, TensorF32>;
  readonly B: Map<string, TensorF32>;
  readonly extra: Map<string, ExtraTensor>;
}

function sameValues(a: ExtraTensor, b: ExtraTensor): boolean {
  return a.data.length === b.data.length && a.data.every((value, i) => value === b.data[i]);
}

/** Weights of which some or all make an adapter. */
export interface AdapterSource {
  /** For messages. */
  readonly path: string;
  readonly open: () => Promise<WeightReader>;
  /** Whether a tensor is part of the adapter, by its key without PEFT's prefix; all are unless given. */
  readonly isPart?: (key: string) => boolean;
}

/** Adds the tensors of one source to `parts`. */
async function readParts({ path, open, isPart }: AdapterSource, parts: Parts): Promise<void> {
  const fail: Fail = (reason) => {
    throw new UserError(`Cannot load the adapter "${path}": ${reason}`);
  };
  const reader = await open();
  try {
    for (const key of reader.names()) {
      if (isPart && !isPart(withoutPrefix(key))) continue;
      const role = parseKey(key, fail);
      if (role.kind === "ignored") continue;
      const tensor = await readFloats(reader, key, path, fail);
      if (role.kind === "extra") {
        const other = parts.extra.get(role.tensor);
        if (other !== undefined && !sameValues(other, tensor)) {
          fail(`it has another ${quote(role.tensor)} than before`);
        }
        parts.extra.set(role.tensor, tensor);
      } else {
        if (parts[role.kind].has(role.module)) fail(`it has two lora_${role.kind} for ${quote(role.module)}`);
        parts[role.kind].set(role.module, tensor);
      }
    }
  } finally {
    reader.close();
  }
}

/** Joins the factors. Throws unless every A has its B and both have the rank that the config says. */
function pairUp({ A, B }: Parts, config: AdapterConfig, path: string): Map<string, LoraPair> {
  const fail: Fail = (reason) => {
    throw new UserError(`Cannot load the adapter "${path}": ${reason}`);
  };
  const pairs = new Map<string, LoraPair>();
  for (const [module, a] of A) {
    const b = B.get(module) ?? fail(`${quote(module)} has a lora_A but no lora_B`);
    const rank = loraRank(config, module);
    if (a.shape.length !== 2 || a.shape[0] !== rank || b.shape.length !== 2 || b.shape[1] !== rank) {
      fail(
        `${
          quote(module)
        } has lora_A [${a.shape}] and lora_B [${b.shape}], but adapter_config.json says r = ${rank}`,
      );
    }
    pairs.set(module, { A: a, B: b });
  }
  for (const module of B.keys()) if (!A.has(module)) fail(`${quote(module)} has a lora_B but no lora_A`);
  if (pairs.size === 0) fail("it has no LoRA tensors");
  return pairs;
}

/** The first of these names that a folder has. */
async function firstOf(folder: string, names: readonly string[], files: Files): Promise<string | undefined> {
  try {
    const there = new Set((await files.list(folder)).map(({ name }) => name));
    const name = names.find((name) => there.has(name));
    return name && join(folder, name);
  } catch (error) {
    throw fileError(error, `Cannot load the adapter "${folder}"`);
  }
}

/**
 * Reads an adapter's folder: `adapter_config.json`, `adapter_model.safetensors` or `.bin`, and the trained embeddings
 * and norms that LongLoRA and LongQLoRA keep in `trainable_params.bin`. Everything is held as f32. Throws a
 * {@linkcode UserError} naming file and tensor for missing parts, wrong shapes, NaN, and unsupported features.
 * Whether names and shapes fit the base model is for the caller to check.
 */
export async function readAdapter(
  folder: string,
  { files = diskFiles }: { files?: Files } = {},
): Promise<Adapter> {
  if (!await exists(folder)) {
    throw new UserError(`Cannot load the adapter "${folder}": no such folder. Check the path`);
  }
  const path = await firstOf(folder, ADAPTER_FILES, files);
  if (path === undefined) {
    throw new UserError(
      `Cannot load the adapter "${folder}": it has neither ${ADAPTER_FILES.join(" nor ")}. Check the path`,
    );
  }
  const config = await readAdapterConfig(folder, files);
  const extraPath = await firstOf(folder, EXTRA_FILES, files);
  const sourceOf = (path: string): AdapterSource => ({ path, open: () => openWeightsFile(path, { files }) });
  return await collectAdapter(config, [path, ...(extraPath === undefined ? [] : [extraPath])].map(sourceOf));
}

/**
 * An adapter whose tensors lie in several files, the LoRA factors in the first of them or in any.
 * @throws {UserError} as {@linkcode readAdapter}
 */
export async function collectAdapter(
  config: AdapterConfig,
  sources: readonly AdapterSource[],
): Promise<Adapter> {
  const parts: Parts = { A: new Map(), B: new Map(), extra: new Map() };
  for (const source of sources) await readParts(source, parts);
  const { path } = sources[0]!;
  requireSaved(config, parts, path);
  return { config, lora: pairUp(parts, config, path), extra: parts.extra };
}

/** Throws unless the modules that the config names as trained whole are there. */
function requireSaved({ modules_to_save: wanted }: AdapterConfig, { extra }: Parts, path: string): void {
  const modules = [...extra.keys()].map((tensor) => `.${tensor.replace(/\.[^.]+$/, "")}`);
  const has = (name: string) => modules.some((module) => module.endsWith(`.${name}`));
  // A head that is the embedding is saved once.
  const missing = (wanted ?? []).filter((name) => !has(name) && !(name === "lm_head" && has("embed_tokens")));
  if (missing.length === 0) return;
  throw new UserError(
    `Cannot load the adapter "${path}": adapter_config.json has ${
      missing.map((name) => quote(name)).join(", ")
    } in modules_to_save, ` +
      `but their weights are missing. LongLoRA's are in trainable_params.bin: copy that beside it`,
  );
}

/**
 * The names under which PEFT finds the modules of these tensors: it compares ends of names, so "norm" would
 * also wrap every input_layernorm, and loading would then miss their values.
 */
function modulesToSave(tensors: Iterable<string>): string[] | null {
  const modules = new Set<string>();
  for (const tensor of tensors) {
    const parts = tensor.split(".").slice(0, -1);
    modules.add(parts.at(-1) === "norm" ? parts.slice(-2).join(".") : parts.at(-1)!);
  }
  return modules.size === 0 ? null : [...modules].sort();
}

/** The distinct last parts of module names: what `target_modules` lists. */
function lastParts(modules: Iterable<string>): string[] {
  return [...new Set([...modules].map((module) => module.split(".").at(-1)!))].sort();
}

function source(name: string, { shape, data }: TensorF32, dtype: FloatDtype): TensorSource {
  return { name, dtype, shape, read: () => Promise.resolve(fromF32(data, dtype)) };
}

/**
 * Writes an adapter into an existing folder so that PEFT can load it: `adapter_model.safetensors` with the
 * extra tensors as PEFT stores `modules_to_save`, and `adapter_config.json`. Put the call inside `saveAtomic` or
 * `saveFinal`. Throws a {@linkcode UserError} if the folder cannot be written.
 */
export async function writeAdapter(
  folder: string,
  adapter: Adapter,
  { dtype = "F32", files = diskFiles, metadata = {} }: {
    dtype?: FloatDtype;
    files?: Files;
    /** More metadata of the weights' file. */
    metadata?: Readonly<Record<string, string>>;
  } = {},
): Promise<void> {
  const sources: TensorSource[] = [];
  for (const [module, { A, B }] of adapter.lora) {
    sources.push(source(`${PREFIX}${module}.lora_A.weight`, A, dtype));
    sources.push(source(`${PREFIX}${module}.lora_B.weight`, B, dtype));
  }
  for (const [tensor, extra] of adapter.extra) sources.push(source(PREFIX + tensor, extra, dtype));
  sources.sort((a, b) => a.name < b.name ? -1 : 1);
  const path = join(folder, "adapter_model.safetensors");
  await writeSafetensors(path, sources, { format: "pt", ...metadata }, { files });

  const config = {
    ...adapter.config,
    // Without a list PEFT would assume q_proj and v_proj, and ignore the rest.
    target_modules: adapter.config.target_modules ?? lastParts(adapter.lora.keys()),
    modules_to_save: modulesToSave(adapter.extra.keys()),
  };
  const configPath = join(folder, "adapter_config.json");
  try {
    await writeWhole(configPath, "replace", new TextEncoder().encode(encodeAdapterConfig(config)), files);
  } catch (error) {
    throw fileError(error, `Cannot write "${configPath}"`, "Free some space or choose another folder");
  }
}
