import { fetchAgain } from "./fetch_again.ts";
import { quote } from "../text.ts";
import { FILE_LIMITS } from "../data/file_bytes.ts";
import { UserError } from "../errors.ts";
import { join } from "./deps.ts";
import type { Dtype } from "./dtype.ts";
import { type Bytes, diskFiles, errorCode, fileError, type Files, readJson } from "./files.ts";
import { safeJoin } from "./paths.ts";
import { TorchFile, type TorchTensor } from "./pickle.ts";
import { SafetensorsFile, tensorByteLength } from "./safetensors.ts";
import type { TensorSpan } from "./safetensors_header.ts";

/** Name, type and shape of a tensor, known before its bytes are read. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly byteLength: number;
}

/** The tensors of a folder or file, whatever the format; bytes are row-major and read on demand. */
export interface WeightReader {
  names(): Iterable<string>;
  has(name: string): boolean;
  /** Throws a {@linkcode UserError} naming the folder and the tensor if there is none of this name. */
  info(name: string): TensorInfo;
  /** Throws as {@linkcode WeightReader.info}, and if the file cannot be read. */
  read(name: string): Promise<Bytes>;
  /** Fills `into` with the bytes from byte `from` of the tensor on. Throws a RangeError if there are fewer. */
  readInto(name: string, from: number, into: Uint8Array): Promise<void>;
  close(): void;
}

const MAX_SHARDS = 10_000;

/** The names of a model's weights, in the order in which they are looked for. */
const MODEL_FILES = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
] as const;

/** One file of tensors, of either format. */
interface Shard {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorSpan | TorchTensor>;
  read(tensor: string): Promise<Bytes>;
  readInto(tensor: string, from: number, into: Uint8Array): Promise<void>;
  close(): void;
}

/** A file of tensors as its format reads it: by what its header says of a tensor. */
interface TensorFile<Span> {
  readonly tensors: ReadonlyMap<string, Span>;
  read(span: Span): Promise<Bytes>;
  readInto(span: Span, from: number, into: Uint8Array): Promise<void>;
  close(): void;
}

async function openShard(path: string, files: Files): Promise<Shard> {
  return path.endsWith(".safetensors")
    ? shardOf(path, await SafetensorsFile.open(path, files))
    : shardOf(path, await TorchFile.open(path, files));
}

function shardOf<Span extends TensorSpan | TorchTensor>(path: string, file: TensorFile<Span>): Shard {
  return {
    path,
    tensors: file.tensors,
    read: (name) => file.read(file.tensors.get(name)!),
    readInto: (name, from, into) => file.readInto(file.tensors.get(name)!, from, into),
    close: () => file.close(),
  };
}

/** Parts that torch.compile, FSDP, activation checkpointing, DDP, DeepSpeed and Fabric put into names. */
const WRAPPERS: ReadonlySet<string> = new Set([
  "_orig_mod",
  "_fsdp_wrapped_module",
  "_fpw_module",
  "_checkpoint_wrapped_module",
  "_forward_module",
  "module",
]);

/** A tensor's file, and its name there. */
interface Owned {
  readonly shard: Shard;
  readonly stored: string;
}

class Weights implements WeightReader {
  /** By name without what wrappers add to it. */
  readonly #owned = new Map<string, Owned>();

  /**
   * @param where the folder or file, in messages
   * @param owners which shard holds each tensor
   * @throws {UserError} if two tensors have the same name but for wrappers
   */
  constructor(
    readonly where: string,
    owners: ReadonlyMap<string, Shard>,
    readonly shards: readonly Shard[],
  ) {
    for (const [stored, shard] of owners) {
      const name = stored.split(".").filter((part) => !WRAPPERS.has(part)).join(".");
      const other = this.#owned.get(name);
      if (other) {
        throw new UserError(
          `Cannot load "${where}": its tensors ${quote(other.stored)} and ${quote(stored)} both are ${
            quote(name)
          }, ` +
            `once what wrappers add to names is left out. Save the unwrapped model`,
        );
      }
      this.#owned.set(name, { shard, stored });
    }
  }

  names(): Iterable<string> {
    return this.#owned.keys();
  }

  has(name: string): boolean {
    return this.#owned.has(name);
  }

  info(name: string): TensorInfo {
    const { shard, stored } = this.#owner(name);
    const { dtype, shape } = shard.tensors.get(stored)!;
    return { name, dtype, shape, byteLength: tensorByteLength(dtype, shape) };
  }

  async read(name: string): Promise<Bytes> {
    const { shard, stored } = this.#owner(name);
    return await shard.read(stored);
  }

  async readInto(name: string, from: number, into: Uint8Array): Promise<void> {
    const { byteLength } = this.info(name);
    if (from < 0 || from + into.length > byteLength) {
      throw new RangeError(
        `Cannot read bytes ${from} to ${from + into.length} of ${quote(name)}: it has ${byteLength}`,
      );
    }
    const { shard, stored } = this.#owner(name);
    await shard.readInto(stored, from, into);
  }

  close(): void {
    for (const shard of this.shards) shard.close();
  }

  #owner(name: string): Owned {
    const owned = this.#owned.get(name);
    if (owned !== undefined) return owned;
    throw new UserError(
      `Cannot load "${this.where}": it has no tensor ${quote(name)}. ` +
        `Check that config.json belongs to these weights`,
    );
  }
}

/** Opens one `.safetensors` file, or one file of torch.save. Throws a {@linkcode UserError} naming it. */
export async function openWeightsFile(
  path: string,
  { files = diskFiles }: { files?: Files } = {},
): Promise<WeightReader> {
  const shard = await openShard(path, files);
  try {
    return new Weights(path, new Map([...shard.tensors.keys()].map((name) => [name, shard])), [shard]);
  } catch (error) {
    shard.close();
    throw error;
  }
}

/**
 * Opens the weights of a model folder: `model.safetensors`, `model.safetensors.index.json` with shards, the only
 * `.safetensors` file, `pytorch_model.bin`, or `pytorch_model.bin.index.json` with shards. All headers are
 * read and checked here; throws a {@linkcode UserError} naming folder, file and tensor for whatever is wrong.
 */
export async function openWeights(
  folder: string,
  { files = diskFiles }: { files?: Files } = {},
): Promise<WeightReader> {
  const names = await listModelFolder(folder, files);
  const { name, lone } = chooseFile(names);
  if (name === undefined) throw new UserError(noWeightsMessage(folder, names, lone));
  return await openChosen(folder, name, files);
}

/** As {@linkcode openWeights}, and undefined where the folder has no weights, or several of which none is the model's. */
export async function openWeightsIfAny(
  folder: string,
  { files = diskFiles }: { files?: Files } = {},
): Promise<WeightReader | undefined> {
  const { name } = chooseFile(await listModelFolder(folder, files));
  return name === undefined ? undefined : await openChosen(folder, name, files);
}

/** The file that is opened, weights or an index; undefined where there is none. */
function chooseFile(names: readonly string[]): { name: string | undefined; lone: readonly string[] } {
  const known = MODEL_FILES.filter((name) => names.includes(name));
  const lone = names.filter((name) => name.endsWith(".safetensors") && name !== "adapter_model.safetensors");
  // An index or model.safetensors wins over .bin files; so does a lone .safetensors of another name.
  const name = known.find((file) => file.includes("safetensors")) ?? (lone.length === 1 ? lone[0] : known[0]);
  return { name, lone };
}

async function openChosen(folder: string, name: string, files: Files): Promise<WeightReader> {
  return name.endsWith(".index.json")
    ? await openSharded(folder, name, files)
    : await openWeightsFile(join(folder, name), { files });
}

/** Names of what is no folder. */
async function listModelFolder(folder: string, files: Files): Promise<string[]> {
  try {
    return (await files.list(folder)).filter(({ isFolder }) => !isFolder).map(({ name }) => name);
  } catch (error) {
    const remedy = errorCode(error) === "ENOENT" ? "Check the path, or run download first" : "";
    throw fileError(error, `Cannot load the model "${folder}"`, remedy);
  }
}

function noWeightsMessage(folder: string, names: readonly string[], lone: readonly string[]): string {
  const action = `Cannot load the model "${folder}"`;
  if (lone.length > 1) {
    return `${action}: it has ${lone.length} .safetensors files but no model.safetensors.index.json that says what is in ` +
      `which. ${fetchAgain(folder)}`;
  }
  if (names.includes("adapter_config.json")) {
    return `${action}: it holds a LoRA adapter, not a model. Pass it as peft_model, with the base model as base_model`;
  }
  return `${action}: it has none of ${MODEL_FILES.join(", ")}. Check the path. ${fetchAgain(folder)}`;
}

/** Reads the index: tensor names to plain file names, in the index's order. */
async function readIndex(folder: string, indexName: string, files: Files): Promise<Map<string, string>> {
  const path = join(folder, indexName);
  const index = await readJson(path, FILE_LIMITS.index, files);
  const map = typeof index === "object" && index !== null && "weight_map" in index
    ? index.weight_map
    : undefined;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new UserError(`Cannot load "${path}": it has no "weight_map" from tensor names to files`);
  }
  const suffix = indexName.endsWith(".bin.index.json") ? ".bin" : ".safetensors";
  const weightMap = new Map<string, string>();
  for (const [tensor, file] of Object.entries(map)) {
    if (typeof file !== "string" || !file.endsWith(suffix)) {
      throw new UserError(
        `Cannot load "${path}": tensor ${quote(tensor)} must be in a ${suffix} file, not in ${quote(file)}`,
      );
    }
    weightMap.set(tensor, file);
  }
  if (weightMap.size === 0) throw new UserError(`Cannot load "${path}": its "weight_map" is empty`);
  return weightMap;
}

async function openSharded(folder: string, indexName: string, files: Files): Promise<WeightReader> {
  const weightMap = await readIndex(folder, indexName, files);
  const fileNames = [...new Set(weightMap.values())];
  if (fileNames.length > MAX_SHARDS) {
    throw new UserError(`Cannot load "${join(folder, indexName)}": it lists more than ${MAX_SHARDS} files`);
  }
  // Every name is checked before any file is opened.
  const paths = fileNames.map((name) => safeJoin(folder, name, { plain: true, links: "follow" }));
  const shards = new Map<string, Shard>();
  try {
    for (const [i, name] of fileNames.entries()) {
      shards.set(name, await openListedShard(paths[i]!, indexName, files));
    }
    return new Weights(folder, assignOwners(weightMap, shards, indexName), [...shards.values()]);
  } catch (error) {
    for (const shard of shards.values()) shard.close();
    throw error;
  }
}

async function openListedShard(path: string, indexName: string, files: Files): Promise<Shard> {
  try {
    return await openShard(path, files);
  } catch (error) {
    if (error instanceof UserError && errorCode(error.cause) === "ENOENT") {
      throw new UserError(
        `Cannot load "${path}": ${indexName} lists it, but there is no such file. ${fetchAgain(path)}`,
        { cause: error },
      );
    }
    throw error;
  }
}

/** Which shard each listed tensor is in. Throws unless it is in the listed one and in no other. */
function assignOwners(
  weightMap: ReadonlyMap<string, string>,
  shards: ReadonlyMap<string, Shard>,
  indexName: string,
): Map<string, Shard> {
  const owners = new Map<string, Shard>();
  for (const [tensor, fileName] of weightMap) {
    const shard = shards.get(fileName)!;
    if (!shard.tensors.has(tensor)) {
      throw new UserError(
        `Cannot load "${shard.path}": ${indexName} lists ${
          quote(tensor)
        } in it, but it has no such tensor. ` +
          fetchAgain(shard.path),
      );
    }
    owners.set(tensor, shard);
  }
  for (const shard of shards.values()) {
    for (const tensor of shard.tensors.keys()) {
      const owner = owners.get(tensor);
      if (owner !== undefined && owner !== shard) {
        throw new UserError(
          `Cannot load "${shard.path}": it holds ${
            quote(tensor)
          }, which ${indexName} lists in "${owner.path}". ` +
            `The shards are of different models. ${fetchAgain(shard.path)}`,
        );
      }
    }
  }
  return owners;
}
