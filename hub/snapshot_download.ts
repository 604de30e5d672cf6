import { quote } from "../text.ts";
import { TOKENIZER_FILES } from "../data/tokenizer_files.ts";
import { UserError } from "../errors.ts";
import { safeJoin } from "../checkpoint/paths.ts";
import { fetchSnapshot, type SnapshotHooks } from "./hub.ts";
import { type HubReference, parseHubReference } from "./reference.ts";
import { type HubSettings, hubSettings } from "./settings.ts";
import { dataFiles, modelFiles } from "./wanted.ts";

/** Options of {@linkcode snapshotDownload}. */
export interface DownloadOptions extends SnapshotHooks {
  /** `model` (unless given): a model or an adapter; `config`: what it is without its weights. An address says it itself. */
  readonly kind?: "model" | "dataset" | "config";
  /** By the environment, as `huggingface_hub` has it, unless given. */
  readonly settings?: HubSettings;
}

const NOT_WEIGHTS: readonly string[] = ["config.json", ...TOKENIZER_FILES];

const WANTED = {
  model: () => modelFiles,
  dataset: dataFiles,
  config: () => (names: readonly string[]) => names.filter((name) => NOT_WEIGHTS.includes(name)),
} as const;

/**
 * Brings a model or data set of the Hugging Face hub into the cache that Python's `huggingface_hub` uses too; what is there
 * and right is not fetched again.
 *
 * @param name `org/name`, `org/name@revision`, or an address such as `hf://datasets/org/name/train.jsonl`
 * @returns the folder, or where the address names one the file
 * @throws {UserError} if the name is none, or the repository, a file, the disk or the network fails
 */
export async function snapshotDownload(
  name: string | HubReference,
  { kind = "model", settings = hubSettings((variable) => Deno.env.get(variable)), ...hooks }:
    DownloadOptions = {},
): Promise<string> {
  const reference = typeof name === "string" ? referenceTo(name, kind) : name;
  const wanted = reference.kind === "dataset" ? "dataset" : kind === "config" ? "config" : "model";
  const folder = await fetchSnapshot(reference, {
    ...hooks,
    settings,
    wanted: WANTED[wanted](reference.path),
  });
  return reference.path === undefined ? folder : safeJoin(folder, reference.path, { links: "follow" });
}

function referenceTo(name: string, kind: keyof typeof WANTED): HubReference {
  const parsed = parseHubReference(name);
  if (parsed) return name.startsWith("hf://") || kind !== "dataset" ? parsed : { ...parsed, kind };
  throw new UserError(`Cannot download ${quote(name)}: it must be org/name, or an address with hf://`, {
    kind: "usage",
  });
}
