import { quote } from "../text.ts";
import { UserError } from "../errors.ts";
import { join } from "./deps.ts";
import { diskFiles, exists, type Files } from "./files.ts";
import {
  type Adapter,
  type AdapterSource,
  collectAdapter,
  readAdapterConfig,
  withoutPrefix,
} from "./peft.ts";
import { openWeights, openWeightsFile } from "./weights.ts";

/** File in which LongLoRA's runs keep LoRA factors that their merged state may lack. */
const ADAPTER_FILES = ["adapter_model.safetensors", "adapter_model.bin"] as const;

/**
 * The trained part of a checkpoint whose DeepSpeed state was merged into `pytorch_model.bin` (`zero_to_fp32.py`): the
 * LoRA factors, and every other tensor whose name contains one of `trainableParams`. Factors that the merged weights
 * lack are taken from the checkpoint's `adapter_model` file. LongLoRA commit d4eb344, `get_trainable_weights.py`.
 *
 * @param folder with `pytorch_model.bin`, or its shards, and `adapter_config.json`
 * @throws {UserError} if a part of `trainableParams` is in no tensor's name, there are no LoRA factors, they are not
 *   those that `adapter_config.json` names, or a file is missing or damaged
 */
export async function readTrainableWeights(
  folder: string,
  trainableParams: readonly string[],
  { files = diskFiles }: { files?: Files } = {},
): Promise<Adapter> {
  const config = await readAdapterConfig(folder, files);
  const reader = await openWeights(folder, { files });
  let keys: string[];
  try {
    keys = [...reader.names()].map(withoutPrefix);
  } finally {
    reader.close();
  }
  requireMatches(folder, keys, trainableParams);
  const isTrained = (key: string) => isFactor(key) || trainableParams.some((part) => key.includes(part));
  const sources: AdapterSource[] = [{
    path: folder,
    open: () => openWeights(folder, { files }),
    isPart: isTrained,
  }];
  if (!keys.some(isFactor)) sources.push(await factorsOf(folder, files));
  return await collectAdapter(config, sources);
}

function isFactor(key: string): boolean {
  return key.includes(".lora_");
}

function requireMatches(folder: string, keys: readonly string[], parts: readonly string[]): void {
  const unmatched = parts.filter((part) => !keys.some((key) => !isFactor(key) && key.includes(part)));
  if (unmatched.length === 0) return;
  const some = keys.filter((key) => !isFactor(key)).slice(0, 3).map((part) => quote(part)).join(", ");
  throw new UserError(
    `Cannot take ${
      unmatched.map((part) => quote(part)).join(" and ")
    } from "${folder}": none of its ${keys.length} tensors has ` +
      `that in its name${
        some === "" ? "" : ` (they are ${some} and so on)`
      }. Check --trainable_params, and that ` +
      `pytorch_model.bin is what zero_to_fp32.py made`,
  );
}

async function factorsOf(folder: string, files: Files): Promise<AdapterSource> {
  for (const name of ADAPTER_FILES) {
    const path = join(folder, name);
    if (await exists(path)) return { path, open: () => openWeightsFile(path, { files }) };
  }
  throw new UserError(
    `Cannot make an adapter of "${folder}": neither its weights nor an ${
      ADAPTER_FILES.join(" or ")
    } beside them hold ` +
      `LoRA tensors. Was it trained with low_rank_training?`,
  );
}
