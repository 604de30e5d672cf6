/** Choosing the files of a model's or adapter's folder that are uploaded, and writing their card. */
import { stringify } from "yaml";
import { exists, fileError, readJson } from "../checkpoint/files.ts";
import { parseHubReference } from "../hub/reference.ts";
import type { UploadFile } from "../hub/upload.ts";
import { type AdapterConfig, readAdapterConfig } from "../checkpoint/peft.ts";
import { readTrainArgs, TRAIN_ARGS, type TrainArgsFile } from "../checkpoint/train_args_file.ts";
import { openWeights } from "../checkpoint/weights.ts";
import { FILE_LIMITS, readWholeText } from "../data/file_bytes.ts";
import { MORE_TEMPLATES } from "../data/tokenizer_files.ts";
import { UserError } from "../errors.ts";
import { configForPositions, contextLength } from "../model/positions.ts";
import { readConfig } from "../model/config.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { trainedSettings } from "../model/context.ts";
import { type CardFacts, isUnchanged, modelCard } from "./model_card.ts";

/** Files by name; a run's logs, checkpoints and optimiser stay here. */
const PUBLISHED =
  /^(README\.md|config\.json|(generation|preprocessor|processor)_config\.json|tokenizer.*|special_tokens_map\.json|added_tokens\.json|chat_template\.\w+|additional_chat_templates\/[\w-]+\.jinja|model[-.].*safetensors.*|pytorch_model.*\.bin.*|adapter_model\.(safetensors|bin)|trainable_params\.(safetensors|bin))$/;

type Values = Readonly<Record<string, unknown>>;

/** A folder that is ready to go to the hub. */
export interface Publication {
  readonly kind: "adapter" | "model";
  readonly files: readonly UploadFile[];
  /** The README.md made for it; undefined where the folder has one that somebody wrote or changed. */
  readonly card: string | undefined;
}

/**
 * Collects the files of an adapter or model. `adapter_config.json` gets the base model's name on the hub, and
 * `train_args.yaml`, by which Longreach finds the positions, loses the folders of this machine.
 *
 * @param name `org/name`
 * @param options.baseModel name of the base model on the hub; what the adapter's own files say unless given
 * @param options.baseConfig the base model's configuration, where it is at hand: then the card tells the exact positions
 * @throws {UserError} if the folder holds neither, a file is damaged, or the base model is a folder of this machine
 */
export async function preparePublication(
  folder: string,
  name: string,
  options: { readonly baseModel?: string | undefined; readonly baseConfig?: ModelConfig | undefined } = {},
): Promise<Publication> {
  const names = await namesIn(folder);
  const kind = names.includes("adapter_config.json") ? "adapter" : "model";
  const settings = await readTrainArgs(folder);
  const args = settings?.values;
  const isCardOwn = names.includes("README.md") &&
    isUnchanged(await readWholeText(`${folder}/README.md`, FILE_LIMITS.settings));
  // What Longreach put beside it knows neither its name on the hub nor its results.
  const files: UploadFile[] = names.filter((file) =>
    PUBLISHED.test(file) && !(isCardOwn && file === "README.md")
  )
    .map((file) => ({ name: file, content: `${folder}/${file}` }));
  const facts = kind === "adapter"
    ? await adapterFacts(folder, name, settings, options, files)
    : await modelFacts(folder, name, args, options);
  if (args) files.push(textFile(TRAIN_ARGS, stringify(withoutFolders(args))));
  if (names.includes("trainer_state.json")) {
    files.push({ name: "trainer_state.json", content: `${folder}/trainer_state.json` });
  }
  const card = files.some((file) => file.name === "README.md") ? undefined : modelCard(facts);
  return { kind, files: files.sort((a, b) => a.name < b.name ? -1 : 1), card };
}

/** Names of the files in a folder. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    const entries = await Array.fromAsync(Deno.readDir(folder));
    const names = entries.filter(({ isDirectory }) => !isDirectory).map(({ name }) => name);
    if (!entries.some(({ name, isDirectory }) => isDirectory && name === MORE_TEMPLATES)) return names;
    return [
      ...names,
      ...(await namesIn(`${folder}/${MORE_TEMPLATES}`)).map((name) => `${MORE_TEMPLATES}/${name}`),
    ];
  } catch (error) {
    throw fileError(error, `Cannot upload "${folder}"`, "Check --path");
  }
}

/** A file made of text. */
export function textFile(name: string, text: string): UploadFile {
  return { name, content: new TextEncoder().encode(text) };
}

async function adapterFacts(
  folder: string,
  name: string,
  settings: TrainArgsFile | undefined,
  { baseModel, baseConfig }: {
    readonly baseModel?: string | undefined;
    readonly baseConfig?: ModelConfig | undefined;
  },
  files: UploadFile[],
): Promise<CardFacts> {
  const config = await readAdapterConfig(folder);
  if (!files.some((file) => file.name.startsWith("adapter_model."))) {
    throw new UserError(
      `Cannot upload "${folder}": it has adapter_config.json but no adapter_model.safetensors`,
    );
  }
  const base = baseModel ?? config.base_model_name_or_path ?? "";
  if (!parseHubReference(base) || await exists(base)) {
    throw new UserError(
      `Cannot upload "${folder}": its base model is ${
        base === "" ? "not named" : `"${base}"`
      }, which nobody else has. Pass --base_model with its name on the hub, as org/name`,
      { kind: "usage" },
    );
  }
  // Only the name changes: keys that are not read here must stay.
  const raw = await readJson(`${folder}/adapter_config.json`, FILE_LIMITS.adapterConfig) as Values;
  files.push(
    textFile(
      "adapter_config.json",
      JSON.stringify({ ...raw, base_model_name_or_path: base }, null, 2) + "\n",
    ),
  );
  const trained = settings && trainedSettings(settings);
  const args = settings?.values;
  const settled = trained && baseConfig ? configForPositions(baseConfig, trained) : undefined;
  return {
    name,
    kind: "adapter",
    baseModel: base,
    method: describeLora(config),
    data: dataOf(args),
    contextLength: trained?.model_max_length,
    ropeTheta: settled?.rope_theta ?? trained?.rope_theta ?? undefined,
    ropeScaling: settled?.rope_scaling,
    rows: [...settingRows(args), ...await resultRows(folder)],
  };
}

/** Describes an adapter in words: rank, alpha, targets. */
export function describeLora(config: AdapterConfig): string {
  const { r, lora_alpha, target_modules, modules_to_save } = config;
  const targets = Array.isArray(target_modules) ? namesOf(target_modules) : target_modules;
  const extra = modules_to_save ? `; also ${namesOf(modules_to_save)}` : "";
  return `LoRA rank ${r}, alpha ${lora_alpha}, on ${targets ?? "PEFT's default linears"}${extra}`;
}

/** A model's name on the hub, where that and no folder of this machine is meant. */
export async function hubNameOf(base: unknown): Promise<string | undefined> {
  if (typeof base !== "string" || await exists(base)) return undefined;
  return parseHubReference(base)?.name;
}

/** Names in a line; of many, as LoRA on some layers has, the first. */
function namesOf(names: readonly string[]): string {
  const most = 12;
  return names.slice(0, most).join(", ") + (names.length > most ? ` and ${names.length - most} more` : "");
}

async function modelFacts(
  folder: string,
  name: string,
  args: Values | undefined,
  { baseModel }: { readonly baseModel?: string | undefined },
): Promise<CardFacts> {
  const config = await readConfig(folder);
  (await openWeights(folder)).close();
  const made = config.raw.longreach as { base_model?: unknown } | undefined;
  const base = baseModel ?? made?.base_model ?? args?.model_name_or_path;
  return {
    name,
    kind: "model",
    baseModel: await hubNameOf(base),
    method: undefined,
    data: dataOf(args),
    contextLength: contextLength(config),
    ropeTheta: config.rope_theta,
    ropeScaling: config.rope_scaling,
    rows: [...settingRows(args), ...await resultRows(folder)],
  };
}

/** The settings with files and folders of this machine by their last name alone: where they were is nobody's business. */
function withoutFolders(args: Values): Values {
  const shorten = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(shorten);
    return typeof value === "string" ? withoutFolder(value) : value;
  };
  return Object.fromEntries(Object.entries(args).map(([key, value]) => [key, shorten(value)]));
}

/** Shortens paths to their last part; a path is what has separators and is no name on the hub. */
function withoutFolder(text: string): string {
  const isPath = /[/\\]/.test(text) && !parseHubReference(text) && !text.startsWith("long-llm:");
  return isPath ? text.split(/[/\\]/).findLast((part) => part !== "") ?? text : text;
}

/** Names of the training data, without folders of this machine. */
export function dataOf(args: Values | undefined): string[] {
  const named = args?.train_data ?? args?.train_file;
  return [named].flat().filter((each) => typeof each === "string").map(withoutFolder);
}

const SETTINGS: readonly (readonly [key: string, title: string])[] = [
  ["attention", "Attention"],
  ["group_size_ratio", "Group size, as a share of the sequence"],
  ["load_in_4bit", "Base in 4 bits"],
  ["learning_rate", "Learning rate"],
  ["lr_scheduler_type", "Schedule"],
  ["max_seq_length", "Tokens in a training sequence"],
  ["per_device_train_batch_size", "Sequences per forward pass"],
  ["gradient_accumulation_steps", "Forward passes per step"],
];

/** Settings worth a row of the card. */
export function settingRows(args: Values | undefined): [string, string][] {
  if (!args) return [];
  const attention = args.use_full_attn === true ? "full" : "S2-Attn";
  const told: Values = { ...args, attention, ...(attention === "full" ? { group_size_ratio: null } : {}) };
  return SETTINGS.flatMap(([key, title]) =>
    told[key] === undefined || told[key] === null ? [] : [[title, String(told[key])] as [string, string]]
  );
}

/** Results in `trainer_state.json`. */
async function resultRows(folder: string): Promise<[string, string][]> {
  const path = `${folder}/trainer_state.json`;
  if (!await exists(path)) return [];
  const { global_step, epoch, log_history, best_metric } = await readJson(path, FILE_LIMITS.state) as Values;
  const rows: [string, string][] = [];
  if (typeof global_step === "number" && typeof epoch === "number") {
    rows.push(["Steps", `${global_step.toLocaleString("en-US")} (${Number(epoch.toFixed(2))} epochs)`]);
  }
  const history = Array.isArray(log_history) ? log_history as Values[] : [];
  const last = (key: string) =>
    history.findLast((entry) => typeof entry?.[key] === "number")?.[key] as number | undefined;
  const [loss, evalLoss] = [last("loss"), last("eval_loss")];
  if (loss !== undefined) rows.push(["Training loss at the end", loss.toFixed(4)]);
  if (evalLoss !== undefined) {
    rows.push([
      "Evaluation loss at the end",
      `${evalLoss.toFixed(4)} (perplexity ${Math.exp(evalLoss).toPrecision(4)})`,
    ]);
  }
  if (typeof best_metric === "number") rows.push(["Best evaluation loss", best_metric.toFixed(4)]);
  return rows;
}
