/** A model's folder as `transformers` writes it: config, weights in one file or in shards with an index, tokenizer. */
import { FILE_LIMITS } from "../data/file_bytes.ts";
import { tokenizerPlaces } from "../data/tokenizer_files.ts";
import { UserError } from "../errors.ts";
import { join } from "./deps.ts";
import {
  diskFiles,
  elsewhere,
  exists,
  fileError,
  type Files,
  readJson,
  readSmallFile,
  writeWhole,
} from "./files.ts";
import { tensorByteLength, type TensorSource, writeSafetensors } from "./safetensors.ts";
import type { WeightReader } from "./weights.ts";

/** Contents of a model's folder. */
export interface ModelFolder {
  /** The content of config.json. */
  readonly config: Readonly<Record<string, unknown>>;
  /** In the order of the weight files; each is read once, when it is written. */
  readonly tensors: Iterable<TensorSource>;
  /** Folder whose tokenizer files and generation_config.json are copied, as far as they are there. */
  readonly filesFrom?: string;
  /** Names of further files of that folder to copy, as far as they are there. */
  readonly alsoCopied?: readonly string[];
  /** Tokenizer files by name, in place of those of `filesFrom`. */
  readonly tokenizer?: ReadonlyMap<string, string>;
  /** Written to tokenizer_config.json as `model_max_length`; the copied file's own unless given. */
  readonly modelMaxLength?: number;
  /** Tensor bytes in one weight file; a larger tensor has a file of its own. 5 GB unless given. */
  readonly maxShardBytes?: number;
  /** Metadata of each weight file; `transformers` wants `format` in it. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** The result: files, sizes, notes. */
export interface WrittenModel {
  /** Names of the weight files. */
  readonly shards: readonly string[];
  /** Bytes of all tensors. */
  readonly totalBytes: number;
}

/** `transformers`' default of older versions, which every hub and tool takes. */
const MAX_SHARD_BYTES = 5e9;

/** Files of a model that also reads pictures, in which transformers has how they become tensors. */
export const PROCESSOR_FILES = ["preprocessor_config.json", "processor_config.json"] as const;

/** Bytes of a copied tensor that are in memory at once. */
const PIECE = 2 ** 24;

const COPY_LIMIT = FILE_LIMITS.tokenizer;

/**
 * Writes a model into an existing folder, one tensor in memory at a time. Put the call inside `saveFolderAtomic`,
 * `saveAtomic` or `saveFinal`: alone it leaves half a model where it fails.
 *
 * @throws {UserError} if a file cannot be read or written, naming the bytes needed where the disk is full
 */
export async function writeModel(
  folder: string,
  model: ModelFolder,
  { files = diskFiles }: { files?: Files } = {},
): Promise<WrittenModel> {
  const { config, filesFrom, modelMaxLength, maxShardBytes = MAX_SHARD_BYTES } = model;
  const shards = planShards(model.tensors, maxShardBytes);
  const names = shards.map((_, i) => shardName(i, shards.length));
  for (const [i, sources] of shards.entries()) {
    await writeSafetensors(join(folder, names[i]!), sources, model.metadata ?? { format: "pt" }, { files });
  }
  const totalBytes = shards.flat().reduce((sum, { dtype, shape }) => sum + tensorByteLength(dtype, shape), 0);
  if (shards.length > 1) {
    const weight_map = Object.fromEntries(
      shards.flatMap((sources, i) => sources.map(({ name }) => [name, names[i]!] as const)).sort(),
    );
    await writeJson(join(folder, "model.safetensors.index.json"), {
      metadata: { total_size: totalBytes },
      weight_map,
    }, files);
  }
  if (filesFrom !== undefined) {
    const tokenizer = model.tokenizer ?? (await tokenizerPlaces(filesFrom)).paths;
    await copyTokenizer(tokenizer, folder, { modelMaxLength, files });
    for (const name of ["generation_config.json", ...model.alsoCopied ?? []]) {
      const path = join(filesFrom, name);
      if (await exists(path)) await copyFile(path, join(folder, name), files);
    }
  }
  await writeFile(join(folder, "config.json"), new TextEncoder().encode(encodeConfig(config)), files);
  return { shards: names, totalBytes };
}

/** Makes a tensor to write of one that is stored: byte for byte, one piece in memory at a time. @param onRead called first */
export function copiedTensor(weights: WeightReader, name: string, onRead: () => void): TensorSource {
  const { dtype, shape, byteLength } = weights.info(name);
  async function* read(): AsyncGenerator<Uint8Array> {
    onRead();
    for (let from = 0; from < byteLength; from += PIECE) {
      const bytes = new Uint8Array(Math.min(PIECE, byteLength - from));
      await weights.readInto(name, from, bytes);
      yield bytes;
    }
  }
  return { name, dtype, shape, read };
}

/** Keys that `transformers` wants to be floats: 2 is refused or warned about where 2.0 is meant. */
const FLOAT_KEYS =
  /("(?:factor|rope_theta|low_freq_factor|high_freq_factor|beta_fast|beta_slow|attention_factor)": -?\d+)(?=,?$)/gm;

function encodeConfig(config: Readonly<Record<string, unknown>>): string {
  return JSON.stringify(config, null, 2).replace(FLOAT_KEYS, "$1.0") + "\n";
}

/** `model.safetensors`, or `model-00002-of-00003.safetensors`. */
function shardName(index: number, count: number): string {
  const digits = (value: number) => String(value).padStart(5, "0");
  return count === 1 ? "model.safetensors" : `model-${digits(index + 1)}-of-${digits(count)}.safetensors`;
}

/** Fills shard after shard in the order of the tensors, as `transformers` does. */
function planShards(tensors: Iterable<TensorSource>, maxShardBytes: number): TensorSource[][] {
  const shards: TensorSource[][] = [[]];
  const names = new Set<string>();
  let filled = 0;
  for (const source of tensors) {
    if (names.has(source.name)) throw new RangeError(`Cannot write tensor "${source.name}" twice`);
    names.add(source.name);
    const bytes = tensorByteLength(source.dtype, source.shape);
    if (filled > 0 && filled + bytes > maxShardBytes) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(source);
    filled += bytes;
  }
  return shards;
}

/**
 * Copies tokenizer files into an existing folder.
 *
 * @param tokenizer paths by the names they get
 * @param options.modelMaxLength written to tokenizer_config.json as `model_max_length`; the file's own unless given
 * @throws {UserError} if a file cannot be read or written
 */
export async function copyTokenizer(
  tokenizer: ReadonlyMap<string, string>,
  folder: string,
  { modelMaxLength, files = diskFiles }: { modelMaxLength?: number | undefined; files?: Files } = {},
): Promise<void> {
  for (const [name, path] of tokenizer) {
    if (name === "tokenizer_config.json" && modelMaxLength !== undefined) {
      const settings = await readJson(path, COPY_LIMIT, files);
      if (typeof settings !== "object" || settings === null || Array.isArray(settings)) {
        throw new UserError(`Cannot read "${path}": it is no JSON object`);
      }
      await writeJson(join(folder, name), { ...settings, model_max_length: modelMaxLength }, files);
    } else {
      if (name.includes("/")) await files.makeFolder(join(folder, name, ".."));
      await copyFile(path, join(folder, name), files);
    }
  }
}

async function copyFile(from: string, to: string, files: Files): Promise<void> {
  await writeFile(to, await readSmallFile(from, COPY_LIMIT, files), files);
}

async function writeJson(path: string, value: unknown, files: Files): Promise<void> {
  await writeFile(path, new TextEncoder().encode(JSON.stringify(value, null, 2) + "\n"), files);
}

async function writeFile(path: string, bytes: Uint8Array, files: Files): Promise<void> {
  try {
    await writeWhole(path, "replace", bytes, files);
  } catch (error) {
    throw fileError(error, `Cannot write "${path}"`, elsewhere("choose another folder"));
  }
}
