/** Vocabularies that grew: an adapter's embeddings, or a tokenizer, have more tokens than the base model. */
import { quote } from "../../text.ts";
import { type Dtype, DTYPE_BYTES, type FloatDtype, fromF32, toF32 } from "../../checkpoint/dtype.ts";
import type { Adapter, ExtraTensor } from "../../checkpoint/peft.ts";
import { isSavedWhole } from "../../checkpoint/peft_targets.ts";
import type { WeightReader } from "../../checkpoint/weights.ts";
import { UserError } from "../../errors.ts";
import type { ModelConfig } from "../model_config.ts";
import { layoutOf, tablesOf } from "../tensors.ts";

const CHUNK_BYTES = 2 ** 24;

/** A base model and an adapter that fit each other. */
export interface AdaptedBase {
  /** With as many tokens as the adapter brings, and the head apart from the embeddings where the adapter parts them. */
  readonly config: ModelConfig;
  /** With tables under the names that the configuration gives them. */
  readonly adapter: Adapter | undefined;
  /** Notes for the user on the adapter. */
  readonly notes: readonly string[];
}

/**
 * Finds out what an adapter makes of its base. A head that is the embeddings' table stays so, unless the adapter has
 * trained one of them whole: PEFT then trains a copy of that one, and the other stays as the base has it.
 *
 * @throws {UserError} if the adapter brings fewer tokens than the base has, or tables that contradict each other
 */
export function adaptBase(base: ModelConfig, adapter: Adapter | undefined): AdaptedBase {
  if (!adapter) return { config: base, adapter, notes: [] };
  if (!base.tie_word_embeddings) requireHead(base, adapter);
  const { config, extra, notes } = base.tie_word_embeddings
    ? adaptTied(base, adapter)
    : { config: base, extra: adapter.extra, notes: [] };
  const { unknown } = adapter.config;
  return {
    config: withVocabularyOf(config, extra),
    adapter: { ...adapter, extra },
    notes: unknown.length === 0
      ? notes
      : [...notes, `Keys of adapter_config.json that are not known here are left out: ${namesOf(unknown)}`],
  };
}

/** A head beside trained embeddings may be missing where it is the same table: here it is not. */
function requireHead(base: ModelConfig, { config: { modules_to_save }, extra }: Adapter): void {
  const { head } = layoutOf(base);
  if (extra.has(`${head}.weight`) || !modules_to_save?.some((name) => isSavedWhole(head, name))) return;
  throw new UserError(
    `Cannot use the adapter: its adapter_config.json has "${head}" in modules_to_save, but its weights are missing, and ` +
      `the base model's head is not its embeddings`,
  );
}

function namesOf(keys: readonly string[]): string {
  return keys.slice(0, 5).map((key) => quote(key)).join(", ") + (keys.length > 5 ? ", ..." : "");
}

/** As {@linkcode adaptBase} for a base whose head is its embeddings' table. */
function adaptTied(
  base: ModelConfig,
  { config: { modules_to_save, ensure_weight_tying }, extra }: Adapter,
): { config: ModelConfig; extra: Adapter["extra"]; notes: string[] } {
  const layout = layoutOf(base);
  const [embeddings, head] = [`${layout.embeddings}.weight`, `${layout.head}.weight`];
  const [ofEmbeddings, ofHead] = [extra.get(embeddings), extra.get(head)];
  const isSame = ofEmbeddings && ofHead && ofEmbeddings.data.length === ofHead.data.length &&
    ofEmbeddings.data.every((value, i) => value === ofHead.data[i]);
  const isWhole = [layout.embeddings, layout.head].some((table) =>
    modules_to_save?.some((name) => isSavedWhole(table, name))
  );
  if ((ofEmbeddings ?? ofHead) === undefined) return { config: base, extra, notes: [] };
  if (isSame || ((!isWhole || ensure_weight_tying) && !(ofEmbeddings && ofHead))) {
    const { [head]: _, ...rest } = Object.fromEntries(extra);
    const tied = new Map([...Object.entries(rest), [embeddings, (ofEmbeddings ?? ofHead)!]]);
    return { config: base, extra: tied, notes: [] };
  }
  if (!isWhole || ensure_weight_tying) {
    throw new UserError(
      `Cannot use the adapter: its "${embeddings}" and "${head}" differ, but in the base model they are one table`,
    );
  }
  const kept = ofEmbeddings ? (ofHead ? [] : ["head stays"]) : ["embeddings stay"];
  return {
    config: { ...base, tie_word_embeddings: false },
    extra,
    notes: kept.map((part) =>
      `The adapter has trained one end of a table that the base has at both: the ${part} as the base has it, as with ` +
      `PEFT. If it was trained for both, as older versions did here, set ensure_weight_tying: true in its adapter_config.json`
    ),
  };
}

/**
 * The configuration with as many tokens as what an adapter brings, where that is more than the base has: LongLoRA adds a
 * padding token.
 * @throws {UserError} if it brings fewer, or embeddings and head of different sizes
 */
export function withVocabularyOf(
  config: ModelConfig,
  replacements: ReadonlyMap<string, Pick<ExtraTensor, "shape">> | undefined,
): ModelConfig {
  const { embeddings, head } = layoutOf(config);
  const sizes = [embeddings, head].flatMap((module) => replacements?.get(`${module}.weight`)?.shape[0] ?? []);
  const vocab_size = Math.max(config.vocab_size, ...sizes);
  if (sizes.length === 2 && sizes[0] !== sizes[1]) {
    throw new UserError(
      `Cannot use the adapter: it brings embeddings of ${sizes[0]} tokens and a head of ${
        sizes[1]
      }, and they must have ` +
        "as many. Its files are of different runs, or one of the two was saved before it grew",
    );
  }
  const wrong = sizes.find((size) => size !== vocab_size);
  if (wrong !== undefined) {
    throw new UserError(
      `Cannot use the adapter: it brings embeddings or a head of ${wrong} tokens, but the model has ${vocab_size}. ` +
        `It was trained on another base`,
    );
  }
  return vocab_size === config.vocab_size ? config : { ...config, vocab_size };
}

/**
 * The weights with tables of `config.vocab_size` rows: rows that the checkpoint lacks are the mean of those it has, in
 * training, evaluation and merging alike (LongLoRA has them random in evaluation). A head that was tied to the embeddings
 * in `base`, and is not in `config`, has their values.
 */
export function grownWeights(
  stored: WeightReader,
  config: ModelConfig,
  base: ModelConfig = config,
): WeightReader {
  const { vocab_size } = config;
  const weights = base.tie_word_embeddings && !config.tie_word_embeddings
    ? untiedWeights(stored, config)
    : stored;
  const tables = tablesOf(config);
  const means = new Map<string, Promise<Uint8Array>>();
  const rowsOf = (name: string) => weights.info(name).shape[0]!;
  const grows = (name: string) => tables.includes(name) && weights.has(name) && rowsOf(name) < vocab_size;
  const mean = (name: string) => {
    const known = means.get(name) ?? meanRow(weights, name);
    means.set(name, known);
    return known;
  };
  async function readInto(name: string, from: number, into: Uint8Array): Promise<void> {
    const { byteLength } = weights.info(name);
    const stored = Math.max(0, Math.min(into.length, byteLength - from));
    if (stored > 0) await weights.readInto(name, from, into.subarray(0, stored));
    if (stored === into.length) return;
    const row = await mean(name);
    for (let at = stored; at < into.length; at++) into[at] = row[(from + at) % row.length]!;
  }
  return {
    names: () => weights.names(),
    has: (name) => weights.has(name),
    info: (name) => {
      const info = weights.info(name);
      if (!grows(name)) return info;
      const [rows, ...rest] = info.shape;
      return { ...info, shape: [vocab_size, ...rest], byteLength: info.byteLength / rows! * vocab_size };
    },
    read: async (name) => {
      if (!grows(name)) return await weights.read(name);
      const { byteLength, shape } = weights.info(name);
      const bytes = new Uint8Array(byteLength / shape[0]! * vocab_size);
      await readInto(name, 0, bytes);
      return bytes;
    },
    readInto: (name, from, into) =>
      grows(name) ? readInto(name, from, into) : weights.readInto(name, from, into),
    close: () => weights.close(),
  };
}

/** The weights with the embeddings' table under the head's name too. */
function untiedWeights(weights: WeightReader, config: ModelConfig): WeightReader {
  const { embeddings, head } = layoutOf(config);
  const stored = (name: string) => name === `${head}.weight` ? `${embeddings}.weight` : name;
  return {
    names: () => new Set([...weights.names(), `${head}.weight`]),
    has: (name) => weights.has(stored(name)),
    info: (name) => ({ ...weights.info(stored(name)), name }),
    read: (name) => weights.read(stored(name)),
    readInto: (name, from, into) => weights.readInto(stored(name), from, into),
    close: () => weights.close(),
  };
}

/** The mean of all rows, in the table's own format. */
async function meanRow(weights: WeightReader, name: string): Promise<Uint8Array> {
  const { dtype, shape, byteLength } = weights.info(name);
  const [rows, width] = [shape[0]!, shape[1]!];
  const rowBytes = byteLength / rows;
  const most = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
  const sums = new Float64Array(width);
  for (let start = 0; start < rows; start += most) {
    const bytes = new Uint8Array(Math.min(most, rows - start) * rowBytes);
    await weights.readInto(name, start * rowBytes, bytes);
    toF32(bytes, dtype).forEach((value, i) => sums[i % width]! += value);
  }
  return fromF32(Float32Array.from(sums, (sum) => sum / rows), floatDtype(name, dtype));
}

function floatDtype(name: string, dtype: Dtype): FloatDtype {
  if (dtype === "F32" || dtype === "F16" || dtype === "BF16") return dtype;
  throw new UserError(
    `Cannot add tokens to "${name}": it is ${dtype}, not F32, F16 or BF16 (${DTYPE_BYTES[dtype]} bytes)`,
  );
}
