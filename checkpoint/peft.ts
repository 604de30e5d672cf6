import { quote } from "../text.ts";
import { UserError } from "../errors.ts";
import { join } from "./deps.ts";
import { assertFinite, type Dtype, type FloatDtype, fromF32, toF32 } from "./dtype.ts";
import { diskFiles, elsewhere, exists, fileError, type Files, writeWhole } from "./files.ts";
import { type AdapterConfig, encodeAdapterConfig, readAdapterConfig } from "./peft_config.ts";
import { isSavedWhole, isTarget, loraRank } from "./peft_targets.ts";
import { type TensorSource, writeSafetensors } from "./safetensors.ts";
import { textName } from "./text_names.ts";
import { openWeightsFile, type WeightReader } from "./weights.ts";

export { type AdapterConfig, adapterConfig, type AdapterOptions, readAdapterConfig } from "./peft_config.ts";
export { isTarget, loraRank, loraScaling } from "./peft_targets.ts";

/** Values in row-major order. */
export interface TensorF32 {
  /** Axes, the outermost first. */
  readonly shape: readonly number[];
  /** In row-major order. */
  readonly data: Float32Array;
}

/** The two factors on a linear of N outputs and K inputs: y += scaling * B A x. */
export interface LoraPair {
  /** (r, K) */
  readonly A: TensorF32;
  /** (N, r) */
  readonly B: TensorF32;
}

/** A tensor that replaces one of the base model. */
export interface ExtraTensor extends TensorF32 {
  /** Type it was stored in. */
  readonly dtype: Dtype;
}

/** A PEFT LoRA adapter, with everything trained besides. */
export interface Adapter {
  /** The parsed adapter_config.json. */
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

/** Meaning of a key of an adapter's file. */
type Role =
  | { readonly kind: "A" | "B"; readonly module: string }
  | { readonly kind: "extra"; readonly tensor: string }
  | { readonly kind: "ignored" };

type Fail = (reason: string) => never;

function failWith(path: string): Fail {
  return (reason) => {
    throw new UserError(`Cannot load the adapter "${path}": ${reason}`);
  };
}

/**
 * A key as the base model has it: some savers keep PEFT's prefix, one or several, and the name of what holds it all, such as a
 * model that also reads pictures.
 */
export function withoutPrefix(key: string): string {
  return textName(key.replace(/^(?:model\.)?(?:base_model\.model\.)+/, ""));
}

/**
 * Reads a key in any of the forms PEFT, LongLoRA and LongQLoRA write: with or without the prefix, the adapter's name
 * or the `modules_to_save` marker. What wrappers add to names is gone already, see weights.ts.
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
  if (name.includes("trainable_tokens_")) {
    return fail(`${quote(key)} is trained rows of the embedding, which are not supported`);
  }
  if (name.includes("lora_")) return fail(`${quote(key)} is no tensor of plain LoRA`);
  // The base model's own values, which modules_to_save keeps beside the trained ones.
  if (name.includes(".original_module.")) return { kind: "ignored" };
  const tensor = name
    .replace(/\.modules_to_save(?:\.(?!weight$|bias$)[^.]+)?\./, ".")
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
  /** The key that each came from, by its kind and name. */
  readonly keys: Map<string, string>;
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
  const fail = failWith(path);
  const reader = await open();
  try {
    for (const key of reader.names()) {
      if (isPart && !isPart(withoutPrefix(key))) continue;
      const role = parseKey(key, fail);
      if (role.kind === "ignored") continue;
      const tensor = await readFloats(reader, key, path, fail);
      const name = role.kind === "extra" ? role.tensor : `lora_${role.kind} for ${role.module}`;
      const both = `${quote(parts.keys.get(name) ?? "")} and ${quote(key)}`;
      if (role.kind === "extra") {
        const other = parts.extra.get(role.tensor);
        // PEFT saves a resized embedding twice: as it is in the model, and as modules_to_save.
        if (other !== undefined && !sameValues(other, tensor)) {
          fail(`it has another ${quote(role.tensor)} than before: ${both}`);
        }
        parts.extra.set(role.tensor, tensor);
      } else {
        if (parts[role.kind].has(role.module)) {
          fail(`it has two ${name}: ${both}. Save one adapter to a folder`);
        }
        parts[role.kind].set(role.module, tensor);
      }
      parts.keys.set(name, key);
    }
  } finally {
    reader.close();
  }
}

/** Joins the factors. Throws unless every A has its B and both have the rank that the config says. */
function pairUp({ A, B }: Parts, config: AdapterConfig, path: string): Map<string, LoraPair> {
  const fail = failWith(path);
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

/** The files of tensors of an adapter's folder. @throws {UserError} if there is none */
async function adapterSources(folder: string, files: Files): Promise<AdapterSource[]> {
  if (!await exists(folder)) {
    throw new UserError(`Cannot load the adapter "${folder}": no such folder. Check the path`);
  }
  const path = await firstOf(folder, ADAPTER_FILES, files);
  if (path === undefined) {
    throw new UserError(
      `Cannot load the adapter "${folder}": it has neither ${ADAPTER_FILES.join(" nor ")}. Check the path`,
    );
  }
  const extraPath = await firstOf(folder, EXTRA_FILES, files);
  return [path, ...(extraPath === undefined ? [] : [extraPath])].map((path) => ({
    path,
    open: () => openWeightsFile(path, { files }),
  }));
}

/**
 * Shapes of the tensors that an adapter's folder brings in place of the base model's: headers are read, not weights.
 * @throws {UserError} as {@linkcode readAdapter}, as far as headers tell
 */
export async function readExtraShapes(
  folder: string,
  { files = diskFiles }: { files?: Files } = {},
): Promise<ReadonlyMap<string, Pick<ExtraTensor, "shape">>> {
  const shapes = new Map<string, Pick<ExtraTensor, "shape">>();
  for (const { path, open } of await adapterSources(folder, files)) {
    const reader = await open();
    try {
      for (const key of reader.names()) {
        const role = parseKey(key, failWith(path));
        if (role.kind === "extra") shapes.set(role.tensor, { shape: reader.info(key).shape });
      }
    } finally {
      reader.close();
    }
  }
  return shapes;
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
  const sources = await adapterSources(folder, files);
  return await collectAdapter(await readAdapterConfig(folder, files), sources);
}

/**
 * An adapter whose tensors lie in several files, the LoRA factors in the first of them or in any.
 * @throws {UserError} as {@linkcode readAdapter}
 */
export async function collectAdapter(
  config: AdapterConfig,
  sources: readonly AdapterSource[],
): Promise<Adapter> {
  const parts: Parts = { A: new Map(), B: new Map(), extra: new Map(), keys: new Map() };
  for (const source of sources) await readParts(source, parts);
  const { path } = sources[0]!;
  requireSaved(config, parts, path);
  const lora = pairUp(parts, config, path);
  requireTargeted(config, lora.keys(), path);
  return { config, lora, extra: parts.extra };
}

/** PEFT makes LoRA only where the config says so, and leaves out the rest without a word. */
function requireTargeted(config: AdapterConfig, modules: Iterable<string>, path: string): void {
  const other = [...modules].find((module) => isTarget(config, module) === false);
  if (other === undefined) return;
  const rules = ["target_modules", "exclude_modules", "layers_to_transform", "modules_to_save"] as const;
  const set = rules.filter((rule) => config[rule] !== null).map((rule) =>
    `${rule}: ${[config[rule]].flat().join(", ")}`
  );
  throw new UserError(
    `Cannot load the adapter "${path}": it has LoRA on ${
      quote(other)
    }, which its adapter_config.json leaves out ` +
      `(${set.join("; ")}). The two files are of different runs`,
  );
}

/** Throws unless the modules that the config names as trained whole are there. */
function requireSaved({ modules_to_save: wanted }: AdapterConfig, { extra }: Parts, path: string): void {
  const modules = [...extra.keys()].map(moduleOf);
  const has = (name: string) => modules.some((module) => `.${module}.`.includes(`.${name}.`));
  // A head that is the embedding is saved once.
  const isTied = (name: string) =>
    name === "lm_head" && has("embed_tokens") || name === "embed_out" && has("embed_in");
  const missing = (wanted ?? []).filter((name) => !has(name) && !isTied(name));
  if (missing.length === 0) return;
  throw new UserError(
    `Cannot load the adapter "${path}": adapter_config.json has ${
      missing.map((name) => quote(name)).join(", ")
    } in modules_to_save, ` +
      `but their weights are missing. LongLoRA's are in trainable_params.bin: copy that beside it`,
  );
}

/** The module that a tensor is of. */
function moduleOf(tensor: string): string {
  return tensor.replace(/\.[^.]+$/, "");
}

/**
 * The names under which PEFT finds the modules of these tensors, and none that has LoRA: the last parts of their names
 * where those will do. PEFT compares ends of names, so "norm" would also wrap every input_layernorm, and loading would
 * then miss their values.
 */
function modulesToSave({ lora, extra }: Adapter): string[] | null {
  const modules = new Set<string>();
  for (const module of [...extra.keys()].map(moduleOf)) {
    const parts = module.split(".");
    const short = parts.at(-1) === "norm" ? parts.slice(-2).join(".") : parts.at(-1)!;
    const hasLora = [...lora.keys()].some((other) => isSavedWhole(other, short));
    modules.add(hasLora ? module : short);
  }
  return modules.size === 0 ? null : [...modules].sort();
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
    target_modules: adapter.config.target_modules ?? [...adapter.lora.keys()].sort(),
    modules_to_save: modulesToSave(adapter),
  };
  const configPath = join(folder, "adapter_config.json");
  try {
    await writeWhole(configPath, "replace", new TextEncoder().encode(encodeAdapterConfig(config)), files);
  } catch (error) {
    throw fileError(error, `Cannot write "${configPath}"`, elsewhere("choose another folder"));
  }
}
