/** Which base model something was trained on: told by its content, since names and folders may come to hold another. */
import { quote } from "../../text.ts";
import { createHash, join } from "../../checkpoint/deps.ts";
import { exists, readSmallFile } from "../../checkpoint/files.ts";
import { SafetensorsFile } from "../../checkpoint/safetensors.ts";
import { openWeights, type WeightReader } from "../../checkpoint/weights.ts";

/** SHA-256 of a model's parts, in hex. Those of the same content are equal, wherever it lies. */
export interface Fingerprint {
  /** Names, types, shapes and bytes of the tensors, whatever the files; null where they were not asked for. */
  readonly weights: string | null;
  /** `config.json`, but for what `transformers` writes anew without a change of the model. */
  readonly config: string;
  /** The tokenizer's files. */
  readonly tokenizer: string;
}

/** In the metadata of an adapter's weights. */
const KEYS = { name: "base_model_name_or_path", weights: "base_model_fingerprint" } as const;

/** Weights of at most as many bytes are read whole. */
const READ_WHOLE = 2 ** 28;
/** Of larger ones about as many pieces, some of every tensor: no training leaves these as they were. */
const PIECES = { count: 2000, bytes: 4096, ofTensor: 16 } as const;
const LIMIT = 200_000_000;

const TOKENIZER_FILES = [
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
] as const;
/** Keys of config.json that say nothing of the model. */
const VOLATILE: ReadonlySet<string> = new Set(["_name_or_path", "transformers_version", "use_cache"]);

/**
 * The fingerprint of a model's folder, in a moment whatever its size.
 * @param options.config the content of its config.json
 * @param options.weights whether its weights are read; a folder without them will do if not
 * @throws {UserError} if a file cannot be read
 */
export async function fingerprintModel(
  folder: string,
  { config, weights }: { readonly config: Readonly<Record<string, unknown>>; readonly weights: boolean },
): Promise<Fingerprint> {
  return {
    weights: weights ? await hashWeights(folder) : null,
    config: createHash("sha256").update(canonical(config, VOLATILE)).digest("hex"),
    tokenizer: await hashTokenizer(folder),
  };
}

/** Names the parts of two fingerprints that differ. */
export function differingParts(one: Fingerprint, other: Fingerprint): string[] {
  const words = { weights: "weights", config: "config.json", tokenizer: "tokenizer" } as const;
  return (Object.keys(words) as (keyof Fingerprint)[])
    .filter((part) => one[part] !== null && other[part] !== null && one[part] !== other[part])
    .map((part) => words[part]);
}

/** The fingerprint as metadata of an adapter's safetensors file, which PEFT reads over. */
export function fingerprintMetadata(base: string, { weights }: Fingerprint): Record<string, string> {
  return weights === null ? {} : { [KEYS.name]: base, [KEYS.weights]: weights };
}

/**
 * Note for the user where an adapter was trained on another base model than this one; undefined if its
 * fingerprint is of this one, or it has none.
 * @throws {UserError} if a file cannot be read
 */
export async function otherBaseNote(adapterFolder: string, baseFolder: string): Promise<string | undefined> {
  const path = join(adapterFolder, "adapter_model.safetensors");
  if (!await exists(path)) return undefined;
  const file = await SafetensorsFile.open(path);
  file.close();
  const { metadata } = file.header;
  const trainedOn = metadata.get(KEYS.weights);
  if (trainedOn === undefined || trainedOn === await hashWeights(baseFolder)) return undefined;
  return `The adapter "${adapterFolder}" was trained on other weights than those of "${baseFolder}": on those that ` +
    `${
      quote(metadata.get(KEYS.name) ?? "its base")
    } had then. Results will be worse, unless this is the same model in ` +
    "another number format";
}

async function hashWeights(folder: string): Promise<string> {
  const reader = await openWeights(folder);
  try {
    const names = [...reader.names()].sort();
    const total = names.reduce((sum, name) => sum + reader.info(name).byteLength, 0);
    const pieces = Math.min(PIECES.ofTensor, Math.max(1, Math.floor(PIECES.count / names.length)));
    const hash = createHash("sha256");
    for (const name of names) {
      const { dtype, shape, byteLength } = reader.info(name);
      hash.update(JSON.stringify([name, dtype, shape]));
      const spans = total <= READ_WHOLE ? wholeSpans(byteLength) : spread(byteLength, pieces);
      for (const [from, length] of spans) hash.update(await readSpan(reader, name, from, length));
    }
    return hash.digest("hex");
  } finally {
    reader.close();
  }
}

type Span = readonly [from: number, length: number];

function wholeSpans(byteLength: number): Span[] {
  const length = 2 ** 22;
  return Array.from(
    { length: Math.ceil(byteLength / length) },
    (_, i) => [i * length, Math.min(length, byteLength - i * length)],
  );
}

/** Pieces from the first bytes to the last. */
function spread(byteLength: number, count: number): Span[] {
  const length = Math.min(PIECES.bytes, byteLength);
  const step = (byteLength - length) / Math.max(1, count - 1);
  return Array.from({ length: count }, (_, i) => [Math.floor(i * step), length]);
}

async function readSpan(
  reader: WeightReader,
  name: string,
  from: number,
  length: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await reader.readInto(name, from, bytes);
  return bytes;
}

async function hashTokenizer(folder: string): Promise<string> {
  const hash = createHash("sha256");
  for (const name of TOKENIZER_FILES) {
    const path = join(folder, name);
    if (await exists(path)) hash.update(`\n${name}\n`).update(await readSmallFile(path, LIMIT));
  }
  return hash.digest("hex");
}

/** JSON with its keys in order, without some of the outermost. */
function canonical(value: unknown, left: ReadonlySet<string> = new Set()): string {
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item)).join()}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).filter(([key]) => !left.has(key)).sort(([a], [b]) => a < b ? -1 : 1);
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`).join()}}`;
}
