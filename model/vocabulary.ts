/** Vocabularies that grew: an adapter's embeddings, or a tokenizer, have more tokens than the base model. */
import { type Dtype, DTYPE_BYTES, type FloatDtype, fromF32, toF32 } from "../checkpoint/dtype.ts";
import type { ExtraTensor } from "../checkpoint/peft.ts";
import type { WeightReader } from "../checkpoint/weights.ts";
import { UserError } from "../errors.ts";
import type { ModelConfig } from "./config.ts";
import { tablesOf } from "./tensors.ts";

const CHUNK_BYTES = 2 ** 24;

/**
 * The configuration with as many tokens as what an adapter brings, where that is more than the base has: LongLoRA adds a
 * padding token.
 * @throws {UserError} if it brings fewer, or embeddings and head of different sizes
 */
export function withVocabularyOf(
  config: ModelConfig,
  replacements: ReadonlyMap<string, ExtraTensor> | undefined,
): ModelConfig {
  const sizes = tablesOf(config).flatMap((name) => replacements?.get(name)?.shape[0] ?? []);
  const vocab_size = Math.max(config.vocab_size, ...sizes);
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
 * training, evaluation and merging alike (LongLoRA has them random in evaluation).
 */
export function grownWeights(weights: WeightReader, config: ModelConfig): WeightReader {
  const { vocab_size } = config;
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
