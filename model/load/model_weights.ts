/** A base model's weights under the names that its config gives them, whichever of several the files have. */
import { toF32 } from "../../checkpoint/dtype.ts";
import { storedNames, textName } from "../../checkpoint/text_names.ts";
import { openWeights, type WeightReader } from "../../checkpoint/weights.ts";
import { UserError } from "../../errors.ts";
import type { ModelConfig } from "../model_config.ts";
import { layoutOf } from "../tensors.ts";

type OpenOptions = Parameters<typeof openWeights>[1];

/** Bytes of each table that are compared at once. */
const CHUNK_BYTES = 2 ** 24;

/**
 * Opens a folder's weights for its config: a tied model has its one table under the embeddings' name, whichever of the
 * two names the files have, and the text model within one that reads pictures has the names of its own.
 *
 * @param base the folder's own configuration
 * @throws {UserError} as {@linkcode openWeights}; when the head is read, if it is not tied and not there
 */
export async function openModelWeights(
  folder: string,
  base: ModelConfig,
  options: OpenOptions = {},
): Promise<WeightReader> {
  return underNamesOf(base, await openWeights(folder, options), folder);
}

/** Opened weights of `folder` under the names that its config gives them. @throws {UserError} when the head is read, as above */
export function underNamesOf(base: ModelConfig, opened: WeightReader, folder: string): WeightReader {
  const { embeddings, head } = tableNames(base);
  const weights = opened.has(embeddings) ? opened : ofTextModel(opened);
  if (base.tie_word_embeddings) {
    if (weights.has(embeddings) || !weights.has(head)) return weights;
    return renamed(weights, new Map([[head, embeddings]]));
  }
  if (weights.has(head)) return weights;
  return {
    ...bound(weights),
    info: (name) => {
      if (name !== head) return weights.info(name);
      throw new UserError(
        `Cannot load "${folder}": its weights lack "${head}", and its config.json ${
          base.raw.tie_word_embeddings === false ? "says" : "does not say otherwise than"
        } tie_word_embeddings: false. If its head is its table of embeddings, set tie_word_embeddings: true there`,
      );
    },
  };
}

/**
 * Finds the names that a folder's files have for the tensors of its text model, by those that its config gives them.
 * @throws {UserError} as {@linkcode openWeights}
 */
export async function namesInFiles(folder: string): Promise<(name: string) => string> {
  const weights = await openWeights(folder);
  try {
    return storedNames(weights.names());
  } finally {
    weights.close();
  }
}

/**
 * Notes for the user on a tied model's tables: transformers 4 uses the embeddings' where there are two that differ.
 * @throws {UserError} as {@linkcode openWeights}
 */
export async function tableNotes(folder: string, base: ModelConfig): Promise<string[]> {
  if (!base.tie_word_embeddings) return [];
  const weights = await openWeights(folder);
  try {
    const { embeddings, head } = tableNames(base);
    if (!weights.has(embeddings) || !weights.has(head) || await isSame(weights, embeddings, head)) return [];
    return [
      `The model holds "${head}" with other values than "${embeddings}", but its config.json says tie_word_embeddings: ` +
      `the embeddings are its head, as in transformers 4. Set tie_word_embeddings: false there to use both, as ` +
      `transformers 5 does`,
    ];
  } finally {
    weights.close();
  }
}

function tableNames(base: ModelConfig): { readonly embeddings: string; readonly head: string } {
  const { embeddings, head } = layoutOf(base);
  return { embeddings: `${embeddings}.weight`, head: `${head}.weight` };
}

async function isSame(weights: WeightReader, a: string, b: string): Promise<boolean> {
  const [one, other] = [weights.info(a), weights.info(b)];
  if (one.shape.join() !== other.shape.join()) return false;
  if (one.dtype !== other.dtype) {
    const [x, y] = [toF32(await weights.read(a), one.dtype), toF32(await weights.read(b), other.dtype)];
    return x.every((value, i) => value === y[i]);
  }
  for (let from = 0; from < one.byteLength; from += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, one.byteLength - from);
    const [x, y] = [new Uint8Array(length), new Uint8Array(length)];
    await weights.readInto(a, from, x);
    await weights.readInto(b, from, y);
    if (!x.every((byte, i) => byte === y[i])) return false;
  }
  return true;
}

/** Gives the weights of a model that also reads pictures by the names of its text model alone. */
function ofTextModel(weights: WeightReader): WeightReader {
  const others = [...weights.names()].map((name) => [name, textName(name)] as const)
    .filter(([stored, name]) => stored !== name);
  return others.length === 0 ? weights : renamed(weights, new Map(others));
}

/** Gives the weights with some tensors under other names. @param names the new ones, by those in the files */
function renamed(weights: WeightReader, names: ReadonlyMap<string, string>): WeightReader {
  const stored = new Map([...names].map(([from, to]) => [to, from]));
  const inFiles = (name: string) => stored.get(name) ?? name;
  return {
    names: () => [...weights.names()].map((name) => names.get(name) ?? name),
    has: (name) => !names.has(name) && weights.has(inFiles(name)),
    info: (name) => ({ ...weights.info(inFiles(name)), name }),
    read: (name) => weights.read(inFiles(name)),
    readInto: (name, at, into) => weights.readInto(inFiles(name), at, into),
    close: () => weights.close(),
  };
}

function bound(weights: WeightReader): WeightReader {
  return {
    names: () => weights.names(),
    has: (name) => weights.has(name),
    info: (name) => weights.info(name),
    read: (name) => weights.read(name),
    readInto: (name, from, into) => weights.readInto(name, from, into),
    close: () => weights.close(),
  };
}
