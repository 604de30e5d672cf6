/** The model card, README.md, beside an adapter or model on this machine. */
import { exists, readSmallFile } from "../checkpoint/files.ts";
import { readAdapterConfig } from "../checkpoint/peft.ts";
import { FILE_LIMITS } from "../data/file_bytes.ts";
import { contextLength } from "../model/positions.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { isUnchanged, modelCard, signed } from "./model_card.ts";
import { dataOf, describeLora, hubNameOf, settingRows } from "./publish.ts";

/** The card's name in its folder. */
export const CARD = "README.md";

/** Subject of a card: what was written, and from what. */
export interface CardSubject {
  /** Folder of the base model, or its name on the hub. */
  readonly base: string;
  /** Configuration of what was written, its positions settled. */
  readonly config: ModelConfig;
  /** The settings it was trained with. */
  readonly args?: Readonly<Record<string, unknown>> | undefined;
}

/**
 * Makes the card of the adapter or model that `folder` holds. It tells settings alone, nothing that was measured and no
 * path of this machine, so that equal runs have equal cards.
 */
export async function localCard(folder: string, { base, config, args }: CardSubject): Promise<string> {
  const isAdapter = await exists(`${folder}/adapter_config.json`);
  const name = base.split(/[/\\]/).findLast((part) => part !== "") ?? base;
  const card = modelCard({
    title: `${name}, ${contextLength(config).toLocaleString("en-US")} tokens`,
    name: isAdapter ? "path/to/this/adapter" : "path/to/this/model",
    kind: isAdapter ? "adapter" : "model",
    baseModel: await hubNameOf(base),
    method: isAdapter ? describeLora(await readAdapterConfig(folder)) : undefined,
    data: dataOf(args),
    contextLength: contextLength(config),
    ropeTheta: config.rope_theta,
    ropeScaling: config.rope_scaling,
    rows: settingRows(args),
  });
  return signed(card);
}

/** Writes the card of what `folder` holds into it. */
export async function writeCard(folder: string, subject: CardSubject): Promise<void> {
  await Deno.writeTextFile(`${folder}/${CARD}`, await localCard(folder, subject));
}

/** Whether a folder has a card that somebody wrote or changed: such a one stays. */
export async function hasForeignCard(folder: string): Promise<boolean> {
  const path = `${folder}/${CARD}`;
  if (!await exists(path)) return false;
  const text = await readSmallFile(path, FILE_LIMITS.settings).then(
    (bytes) => new TextDecoder().decode(bytes),
    () => undefined,
  );
  return text === undefined || !isUnchanged(text);
}
