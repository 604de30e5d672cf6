/** The files that make a tokenizer: a model's, or an adapter's own in their place. */
import { quote } from "../text.ts";
import { UserError } from "../errors.ts";
import { FILE_LIMITS, readWhole, readWholeText } from "./file_bytes.ts";
import { parseJson } from "./json.ts";
import { isRecord, type TokenizerConfig, type TokenizerJson } from "./tokenizer_json.ts";

/** Names of tokenizer files, as transformers saves them. */
export const TOKENIZER_FILES = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "tokenizer.model",
  "chat_template.jinja",
  "chat_template.json",
] as const;

/** Folder of chat templates besides the default one, as transformers saves them: one file each, `tool_use.jinja`. */
export const MORE_TEMPLATES = "additional_chat_templates";

export type TokenizerFile = (typeof TOKENIZER_FILES)[number] | `${typeof MORE_TEMPLATES}/${string}`;

/** Paths of a tokenizer's files. */
export interface TokenizerPlaces {
  readonly paths: ReadonlyMap<TokenizerFile, string>;
  /** Which of them are the adapter's. */
  readonly ofAdapter: readonly TokenizerFile[];
}

/** The file that another one belongs to: it says nothing beside another model's. */
const OWNERS: Readonly<Partial<Record<string, TokenizerFile>>> = {
  "added_tokens.json": "tokenizer.json",
  "tokenizer.model": "tokenizer.json",
  "special_tokens_map.json": "tokenizer_config.json",
  "chat_template.jinja": "tokenizer_config.json",
  "chat_template.json": "tokenizer_config.json",
  [MORE_TEMPLATES]: "tokenizer_config.json",
};

/**
 * Finds a tokenizer's files. Each one that the adapter's folder has is taken from there; the model's fill in for those
 * that are missing, unless they belong to one that the adapter has.
 */
export async function tokenizerPlaces(folder: string, adapter?: string): Promise<TokenizerPlaces> {
  const base = await filesIn(folder);
  const own = adapter === undefined ? new Set<TokenizerFile>() : await filesIn(adapter);
  const paths = new Map<TokenizerFile, string>();
  for (const name of new Set([...TOKENIZER_FILES, ...base, ...own])) {
    const owner = OWNERS[name.split("/")[0]!];
    if (own.has(name)) paths.set(name, `${adapter}/${name}`);
    else if (base.has(name) && !(owner && own.has(owner))) paths.set(name, `${folder}/${name}`);
  }
  return { paths, ofAdapter: [...own] };
}

/** Describes an adapter's own tokenizer files in one line; undefined where it has none. */
export function describePlaces({ ofAdapter }: TokenizerPlaces, adapter: string): string | undefined {
  if (ofAdapter.length === 0) return undefined;
  const missing = ["tokenizer.json", "tokenizer_config.json"].filter((name) =>
    !ofAdapter.includes(name as TokenizerFile)
  );
  return `The tokenizer is the adapter's: ${ofAdapter.join(", ")} of "${adapter}"` +
    (missing.length > 0 ? `; ${missing.join(" and ")} of the base model` : "");
}

async function filesIn(folder: string): Promise<Set<TokenizerFile>> {
  const found = new Set<TokenizerFile>();
  for (const name of TOKENIZER_FILES) {
    try {
      await Deno.stat(`${folder}/${name}`);
      found.add(name);
    } catch (cause) {
      if (cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.NotADirectory) continue;
      throw new UserError(`Cannot read "${folder}/${name}": ${describe(cause)}`, { cause });
    }
  }
  if (!await isFolder(`${folder}/${MORE_TEMPLATES}`)) return found;
  for await (const { name } of Deno.readDir(`${folder}/${MORE_TEMPLATES}`)) {
    if (/^[\w-]+\.jinja$/.test(name)) found.add(`${MORE_TEMPLATES}/${name}`);
  }
  return found;
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isDirectory;
  } catch {
    return false;
  }
}

/**
 * Reads what makes a tokenizer: tokenizer.json, and tokenizer_config.json with what transformers would take of
 * special_tokens_map.json, added_tokens.json and chat_template.jinja.
 *
 * @throws {UserError} if a file cannot be read, or what two of them say of a token does not agree
 */
export async function readTokenizerFiles(
  folder: string,
  adapter?: string,
): Promise<[json: TokenizerJson, config: TokenizerConfig, label: string]> {
  const { paths, ofAdapter } = await tokenizerPlaces(folder, adapter);
  const path = paths.get("tokenizer.json");
  if (path === undefined) throw missingTokenizer(folder);
  const json = await readRecord(path);
  const read = async (name: TokenizerFile) => {
    const path = paths.get(name);
    return path === undefined ? undefined : await readRecord(path);
  };
  const config = await read("tokenizer_config.json") ?? {};
  const label = `"${path}"`;
  const specialTokens = await read("special_tokens_map.json");
  const isNewer = ofAdapter.includes("special_tokens_map.json") &&
    !ofAdapter.includes("tokenizer_config.json");
  const legacy = legacySettings(config, await read("added_tokens.json"), specialTokens, {
    json,
    label,
    isNewer,
  });
  return [
    json as unknown as TokenizerJson,
    {
      ...config,
      ...legacy,
      ...await readTemplates(paths),
    },
    label,
  ];
}

type Values = Readonly<Record<string, unknown>>;

/** Chat templates in files of their own, which stand in place of those in tokenizer_config.json; none where there is no such file. */
async function readTemplates(paths: TokenizerPlaces["paths"]): Promise<Values> {
  const named: { name: string; template: string }[] = [];
  for (const [file, path] of paths) {
    const [folder, name] = file.split("/") as [string, string?];
    if (folder !== MORE_TEMPLATES && file !== "chat_template.jinja") continue;
    const template = await readWholeText(path, FILE_LIMITS.settings);
    named.push({ name: name?.replace(/\.jinja$/, "") ?? "default", template });
  }
  const [first, ...others] = named;
  if (first === undefined) return {};
  return { chat_template: first.name === "default" && others.length === 0 ? first.template : named };
}

/**
 * Settings of older files. transformers reads them only where tokenizer_config.json has no added_tokens_decoder; beside one,
 * added_tokens.json may only repeat it.
 *
 * @param isNewer whether the special tokens are an adapter's, and tokenizer_config.json is the base model's
 */
function legacySettings(
  config: Values,
  addedTokens: Values = {},
  specialTokens: Values = {},
  { json, label, isNewer }: { readonly json: Values; readonly label: string; readonly isNewer: boolean },
): Values {
  const fail = (problem: string) => new UserError(`Cannot use the tokenizer ${label}: ${problem}`);
  if (config.added_tokens_decoder !== undefined) {
    const known = new Map<unknown, unknown>(listedTokens(json).map(({ content, id }) => [content, id]));
    for (
      const [id, entry] of isRecord(config.added_tokens_decoder)
        ? Object.entries(config.added_tokens_decoder)
        : []
    ) {
      if (isRecord(entry)) known.set(entry.content, Number(id));
    }
    for (const [content, id] of Object.entries(addedTokens)) {
      if (known.get(content) === id) continue;
      const other = known.has(content) ? `gives it ${quote(known.get(content))}` : "has no such token";
      throw fail(
        `added_tokens.json gives ${quote(content)} the id ${quote(id)}, but added_tokens_decoder in ` +
          `tokenizer_config.json ${other}. Keep one of them`,
      );
    }
    return isNewer ? specialTokens : {};
  }
  const additional = [config, specialTokens].flatMap(({ additional_special_tokens: list }) =>
    Array.isArray(list) ? list as unknown[] : []
  );
  const merged = {
    ...specialTokens,
    ...(additional.length > 0 ? { additional_special_tokens: additional } : {}),
  };
  const contents = Object.values({ ...config, ...merged }).flat();
  const special = new Set(contents.map((value) => isRecord(value) ? value.content : value));
  const decoder: Record<string, Values> = {};
  for (const [content, id] of Object.entries(addedTokens)) {
    const other = decoder[String(id)]?.content;
    if (other !== undefined) {
      throw fail(`added_tokens.json gives ${quote(content)} the id ${quote(id)}, which ${quote(other)} has`);
    }
    // What tokenizer.json says of it comes first.
    const { id: _, ...flags } = listedTokens(json).find((token) => token.content === content) ?? {};
    decoder[String(id)] = { content, special: special.has(content), ...flags };
  }
  return { ...merged, ...(Object.keys(decoder).length > 0 ? { added_tokens_decoder: decoder } : {}) };
}

function listedTokens({ added_tokens }: Values): Values[] {
  return Array.isArray(added_tokens) ? added_tokens.filter(isRecord) : [];
}

async function readRecord(path: string): Promise<Values> {
  const value = parseJson(await readWhole(path, FILE_LIMITS.tokenizer), path);
  if (!isRecord(value)) throw new UserError(`Cannot read "${path}": it is no JSON object`);
  return value;
}

function missingTokenizer(folder: string): UserError {
  return new UserError(
    `Cannot load a tokenizer from "${folder}": it has no tokenizer.json. Copy the one of the base model there; ` +
      `a folder with only tokenizer.model needs a fast tokenizer saved by AutoTokenizer.save_pretrained`,
  );
}

function describe(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
