/** Adapters and models that were pickled, as safetensors. */
import { FILE_LIMITS } from "../data/file_bytes.ts";
import { tokenizerPlaces } from "../data/tokenizer_files.ts";
import { UserError } from "../errors.ts";
import { join } from "./deps.ts";
import { exists, readJson } from "./files.ts";
import { readAdapter, writeAdapter } from "./peft.ts";
import type { TensorSource } from "./safetensors.ts";
import { copiedTensor, copyTokenizer, PROCESSOR_FILES, writeModel } from "./save_model.ts";
import { saveFolderAtomic } from "./store.ts";
import { openWeights, type WeightReader } from "./weights.ts";

/** Options of {@linkcode convertToSafetensors}. */
export interface SafetensorsOptions {
  /** Largest weight file of a model, in bytes; 5 GB unless given. */
  readonly maxShardSize?: number;
}

/** Progress and notes of {@linkcode convertToSafetensors}. */
export interface SafetensorsHooks {
  /** `done` of `total` tensors are read, the last of which is `tensor`. */
  onProgress?(done: number, total: number, tensor: string): void;
  /** Told, in one line, what of earlier interrupted work was removed. */
  note?(line: string): void;
}

/**
 * Writes a folder with weights of torch.save, a model's or an adapter's, as one with safetensors: a model's tensors bit
 * for bit and one piece at a time, an adapter's with what it trained besides LoRA in one file, as PEFT has it. Nothing is
 * under `path` until all of it is.
 *
 * @throws {UserError} if a file is damaged, a pickle holds more than tensors, or `path` is not empty
 */
export async function convertToSafetensors(
  folder: string,
  path: string,
  { maxShardSize = 5e9 }: SafetensorsOptions = {},
  { onProgress, note }: SafetensorsHooks = {},
): Promise<void> {
  if (await exists(join(folder, "adapter_config.json"))) {
    const adapter = await readAdapter(folder);
    const { paths } = await tokenizerPlaces(folder);
    return await saveFolderAtomic(path, async (staged) => {
      await writeAdapter(staged, adapter);
      await copyTokenizer(paths, staged);
    }, { ...(note && { note }) });
  }
  const config = await readJson(join(folder, "config.json"), FILE_LIMITS.config);
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new UserError(`Cannot load "${join(folder, "config.json")}": it is no JSON object`);
  }
  const weights = await openWeights(folder);
  try {
    await saveFolderAtomic(path, async (staged) => {
      await writeModel(staged, {
        config: config as Record<string, unknown>,
        tensors: copies(weights, onProgress),
        filesFrom: folder,
        alsoCopied: PROCESSOR_FILES,
        maxShardBytes: maxShardSize,
      });
    }, { ...(note && { note }) });
  } finally {
    weights.close();
  }
}

function copies(
  weights: WeightReader,
  onProgress: SafetensorsHooks["onProgress"],
): TensorSource[] {
  const names = [...weights.names()];
  let done = 0;
  return names.map((name) => copiedTensor(weights, name, () => onProgress?.(++done, names.length, name)));
}
