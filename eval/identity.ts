/** Identity of a measured model by its content, so that results of two models never stand in one table. */
import { createHash, join } from "../checkpoint/deps.ts";
import { exists } from "../checkpoint/files.ts";
import { requireSame } from "../distributed/agreement.ts";
import { ALONE } from "../distributed/communicator.ts";
import { openRegular } from "../data/file_bytes.ts";
import { readConfig } from "../model/config.ts";
import { fingerprintModel } from "../model/load/fingerprint.ts";
import type { MeasuredModel } from "./measured_model.ts";

/** SHA-256 of what a model is made of, in hex. */
export interface ModelIdentity {
  readonly base_weights: string | null;
  readonly base_config: string;
  readonly base_tokenizer: string;
  /** Hash of the adapter's own file; null without one. */
  readonly adapter: string | null;
}

/** Files that an adapter's tensors may be in, as PEFT looks for them. */
const ADAPTER_FILES = ["adapter_model.safetensors", "adapter_model.bin"] as const;

/** Reads what tells a model from others. @throws {UserError} if a file cannot be read */
export async function identify(baseModel: string, peftModel: string | null): Promise<ModelIdentity> {
  const { raw } = await readConfig(baseModel);
  const { weights, config, tokenizer } = await fingerprintModel(baseModel, { config: raw, weights: true });
  return {
    base_weights: weights,
    base_config: config,
    base_tokenizer: tokenizer,
    adapter: peftModel === null ? null : await hashAdapter(peftModel),
  };
}

/**
 * Checks that all ranks measure the same model by the same protocol on the same token ids.
 * @throws {UserError} naming what differs, and on which rank
 */
export async function requireSameMeasurement(
  { baseModel, peftModel = null, ranks = ALONE }: MeasuredModel,
  protocol: object,
  documents: readonly ArrayLike<number>[],
): Promise<void> {
  if (ranks.size === 1) return;
  const hash = createHash("sha256");
  for (const ids of documents) hash.update(new Uint8Array(Uint32Array.from(ids).buffer));
  await requireSame(ranks, {
    "the model": JSON.stringify(await identify(baseModel, peftModel)),
    "the protocol": JSON.stringify(protocol),
    "the data": hash.digest("hex"),
  });
}

async function hashAdapter(folder: string): Promise<string | null> {
  for (const name of ADAPTER_FILES) {
    const path = join(folder, name);
    if (!await exists(path)) continue;
    const hash = createHash("sha256");
    const file = await openRegular(path);
    for await (const chunk of file.readable) hash.update(chunk);
    return hash.digest("hex");
  }
  return null;
}
