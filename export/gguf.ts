/** A checkpoint as a GGUF file: llama.cpp's names, its order of rotary rows, its tokenizer tables. */
import { type GgufTensor, type GgufType, type GgufValue, hasBlocks, writeGguf } from "../checkpoint/gguf.ts";
import { basename } from "../checkpoint/deps.ts";
import { exists, RangeFile } from "../checkpoint/files.ts";
import { fromF32, toF32 } from "../checkpoint/dtype.ts";
import type { WeightReader } from "../checkpoint/weights.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { contextLength } from "../model/positions.ts";
import { readConfig } from "../model/config.ts";
import type { WorkHooks } from "../model/hooks.ts";
import type { GgufForm } from "../model/architecture.ts";
import { architectureOf, ARCHITECTURES } from "../model/architectures.ts";
import type { ModuleSpec } from "../model/layout.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { openModelWeights, tableNotes } from "../model/load/model_weights.ts";
import { textAloneNotes } from "../model/wrapper.ts";
import { positionKeys, positionNotes, positionTensors, windowKeys } from "./gguf_positions.ts";
import { ggufTokenizer } from "./gguf_tokenizer.ts";
import { checkpointTensors, layoutOf, modulesOf, normWeights } from "../model/tensors.ts";

/** llama.cpp's numbers of the most common type in a file. */
const FILE_TYPES: Readonly<Record<GgufType, number>> = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7, BF16: 32 };

/** Version of ggml's quantised blocks. */
const QUANTIZATION_VERSION = 2;

export interface GgufExport {
  readonly config: ModelConfig;
  /** How llama.cpp has the architecture. */
  readonly form: GgufForm;
  readonly weights: WeightReader;
  readonly tokenizer: Tokenizer;
  /** `general.name` */
  readonly name: string;
  /** Format of matrices; norms and biases stay F32. */
  readonly type: GgufType;
  readonly onProgress?: (done: number, total: number, name: string) => void;
  /** Replace a file that is there. */
  readonly overwrite?: boolean;
  /** Told, a line each, what llama.cpp will do otherwise, and what of earlier interrupted work was removed. */
  readonly note?: (line: string) => void;
}

/**
 * Writes the model to `path`.
 * @throws {UserError} if its rope scaling, or its tokenizer, has no GGUF form, or the file is there already, with
 * overwrite one that is no GGUF file
 */
async function exportGguf(path: string, model: GgufExport): Promise<void> {
  const names = namesOf(model);
  const norms = normWeights(model.config);
  const tensors: GgufTensor[] = [];
  for (const [name, shape] of checkpointTensors(model.config)) {
    const { experts } = names.get(moduleOf(name))!;
    if (!experts) tensors.push(tensorOf(model, name, shape, names, norms));
    else if (experts[0] === moduleOf(name)) tensors.push(expertsTensor(model, experts, shape, names));
  }
  tensors.push(...positionTensors(model.config));
  const { onProgress, note, overwrite = false } = model;
  if (overwrite) await refuseOtherFile(path);
  const options = { ...(onProgress && { onProgress }), note, mustBeNew: !overwrite };
  await writeGguf(path, metadataOf(model), tensors, options);
}

/** Refuses to overwrite a file that is no GGUF, such as the weights that are to be converted. */
async function refuseOtherFile(path: string): Promise<void> {
  if (!await exists(path)) return;
  const file = await RangeFile.open(path);
  try {
    const start = await file.read(0, Math.min(4, file.size));
    if (file.size === 0 || new TextDecoder().decode(start) === "GGUF") return;
  } finally {
    file.close();
  }
  throw new UserError(
    `Cannot write "${path}": it is there already and is no GGUF file, so that --overwrite does not replace it. ` +
      "Remove it, or choose another name",
    { kind: "usage" },
  );
}

/** llama.cpp's name of a module, and whether its rows stand in another order there. */
interface GgufModule {
  readonly name: string;
  readonly isInterleaved: boolean;
  /** Whether 4 bits harm it most. */
  readonly isTable: boolean;
  /** Whether it is a router, which stays in F32. */
  readonly isRouter?: boolean | undefined;
  /** Modules of all experts, where the tensors of all are one. */
  readonly experts?: readonly string[] | undefined;
}

/** Maps every module of the model to llama.cpp's. */
function namesOf({ config, form }: GgufExport): Map<string, GgufModule> {
  const layout = layoutOf(config);
  const { embeddings, layers, norm, head } = layout;
  const plain = { isInterleaved: false, isTable: false };
  const names = new Map<string, GgufModule>([
    [embeddings, { ...plain, name: "token_embd", isTable: true }],
    [norm.name, { ...plain, name: "output_norm" }],
    [head, { ...plain, name: "output", isTable: true }],
  ]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const modules = modulesOf(layout, layer);
    for (const spec of modules) {
      const isInterleaved = form.interleaved.includes(spec.name);
      const stack = stackOf(spec);
      const name = `blk.${layer}.${form.modules[stack ?? spec.name]!}`;
      const experts = stack === undefined
        ? undefined
        : modules.filter((each) => stackOf(each) === stack).map((each) => `${layers}.${layer}.${each.name}`);
      names.set(`${layers}.${layer}.${spec.name}`, {
        ...plain,
        name,
        isInterleaved,
        experts,
        isRouter: spec.kind === "router",
      });
    }
  }
  return names;
}

/** Name of the experts' linears that a module is one of. */
function stackOf(spec: ModuleSpec): string | undefined {
  return spec.kind === "linear" ? spec.expert?.stack : undefined;
}

/** Module of a tensor. */
function moduleOf(tensor: string): string {
  return tensor.slice(0, tensor.lastIndexOf("."));
}

/** The matrices (N, K) of all experts as one tensor (E, N, K). */
function expertsTensor(
  { weights, type }: GgufExport,
  experts: readonly string[],
  [rows, width]: readonly number[],
  names: ReadonlyMap<string, GgufModule>,
): GgufTensor {
  const tensors = experts.map((module) => `${module}.weight`);
  const first = weights.info(tensors[0]!);
  const other = tensors.find((name) => weights.info(name).dtype !== first.dtype);
  if (other !== undefined) {
    throw new UserError(
      `Cannot write GGUF: "${other}" is ${weights.info(other).dtype}, but "${
        tensors[0]
      }" is ${first.dtype}, and ` +
        "the experts of a layer become one tensor",
    );
  }
  return {
    name: `${names.get(experts[0]!)!.name}.weight`,
    shape: [experts.length, rows!, width!],
    type: storedType(type, width!, false),
    readRows: async (start, count) => {
      const chunks: Uint8Array[] = [];
      for (let row = start; row < start + count;) {
        const [expert, inside] = [Math.floor(row / rows!), row % rows!];
        const here = Math.min(rows! - inside, start + count - row);
        chunks.push(await readRows(weights, tensors[expert]!, inside, here));
        row += here;
      }
      return { bytes: concat(chunks), dtype: first.dtype };
    },
  };
}

function concat(chunks: readonly Uint8Array[]): Uint8Array {
  if (chunks.length === 1) return chunks[0]!;
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

function tensorOf(
  { config, weights, type }: GgufExport,
  name: string,
  shape: readonly number[],
  names: ReadonlyMap<string, GgufModule>,
  norms: ReadonlyMap<string, number>,
): GgufTensor {
  const { name: module, isInterleaved, isTable, isRouter } = names.get(moduleOf(name))!;
  const { dtype } = weights.info(name);
  // llama.cpp has the factor itself, not what is added to 1.
  const offset = 1 - (norms.get(name) ?? 1);
  return {
    name: `${module}${name.slice(name.lastIndexOf("."))}`,
    shape,
    type: shape.length < 2 || isRouter ? "F32" : storedType(type, shape.at(-1)!, isTable),
    readRows: async (start, count) => {
      if (shape.length < 2) {
        const bytes = await weights.read(name);
        if (offset !== 0) {
          const factors = toF32(bytes, dtype).map((weight) => weight + offset);
          return { bytes: fromF32(factors, "F32"), dtype: "F32" };
        }
        return {
          bytes: isInterleaved
            ? interleave(bytes, config.head_dim, bytes.length / shape[0]!, 0, shape[0]!)
            : bytes,
          dtype,
        };
      }
      if (!isInterleaved) return { bytes: await readRows(weights, name, start, count), dtype };
      const { head_dim } = config;
      const first = Math.floor(start / head_dim) * head_dim;
      const end = Math.ceil((start + count) / head_dim) * head_dim;
      const heads = await readRows(weights, name, first, end - first);
      return {
        bytes: interleave(heads, head_dim, heads.length / (end - first), start - first, count),
        dtype,
      };
    },
  };
}

async function readRows(
  weights: WeightReader,
  name: string,
  start: number,
  count: number,
): Promise<Uint8Array> {
  const { shape, byteLength } = weights.info(name);
  const rowBytes = byteLength / shape[0]!;
  const bytes = new Uint8Array(count * rowBytes);
  await weights.readInto(name, start * rowBytes, bytes);
  return bytes;
}

/**
 * Rows that blocks of 32 do not divide stay in F16, as llama.cpp's own converter has it; embeddings and head, which 4 bits
 * harm most, have 8.
 */
function storedType(type: GgufType, width: number, isTable: boolean): GgufType {
  if (hasBlocks(type) && width % 32 !== 0) return "F16";
  return type === "Q4_0" && isTable ? "Q8_0" : type;
}

/**
 * Rows `start` to `start + count` of some heads of a query or key matrix in llama.cpp's order: it rotates neighbouring
 * numbers of a head, Hugging Face's models rotate numbers half a head apart.
 */
function interleave(
  heads: Uint8Array,
  headDim: number,
  rowBytes: number,
  start: number,
  count: number,
): Uint8Array {
  const result = new Uint8Array(count * rowBytes);
  for (let i = 0; i < count; i++) {
    const [head, inside] = [Math.floor((start + i) / headDim), (start + i) % headDim];
    const source = head * headDim + (inside % 2) * headDim / 2 + (inside >> 1);
    result.set(heads.subarray(source * rowBytes, (source + 1) * rowBytes), i * rowBytes);
  }
  return result;
}

function metadataOf({ config, form, tokenizer, name, type, note }: GgufExport): Map<string, GgufValue> {
  const u32 = (value: number): GgufValue => ({ u32: value });
  const { architecture } = form;
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", architecture],
    ["general.type", "model"],
    ["general.name", name],
    ["general.file_type", u32(FILE_TYPES[type])],
    ["general.quantization_version", u32(QUANTIZATION_VERSION)],
    [`${architecture}.block_count`, u32(config.num_hidden_layers)],
    [`${architecture}.context_length`, u32(contextLength(config))],
    [`${architecture}.embedding_length`, u32(config.hidden_size)],
    [`${architecture}.feed_forward_length`, u32(config.intermediate_size)],
    [`${architecture}.attention.head_count`, u32(config.num_attention_heads)],
    [`${architecture}.attention.head_count_kv`, u32(config.num_key_value_heads)],
    [`${architecture}.attention.key_length`, u32(config.head_dim)],
    [`${architecture}.attention.value_length`, u32(config.head_dim)],
    [`${architecture}.attention.layer_norm_rms_epsilon`, { f32: layoutOf(config).norm.eps }],
    ...Object.entries(form.numbers?.(config) ?? {}).map(([key, f32]) =>
      [`${architecture}.${key}`, { f32 }] as const
    ),
    ...Object.entries(form.counts?.(config) ?? {}).map(([key, count]) =>
      [`${architecture}.${key}`, u32(count)] as const
    ),
    ...positionKeys(config, form),
    ...(form.hasWindows ? windowKeys(config, architecture) : []),
    [`${architecture}.vocab_size`, u32(config.vocab_size)],
  ]);
  const { keys, notes } = ggufTokenizer(tokenizer, config.vocab_size);
  for (const [key, value] of keys) metadata.set(key, value);
  notes.forEach((line) => note?.(line));
  return metadata;
}

/** Options of {@linkcode convertToGguf}. */
export interface GgufOptions {
  /** Numbers of matrices, by llama.cpp's names; f16 unless given. Norms and biases are f32. */
  readonly outtype?: "f32" | "f16" | "bf16" | "q8_0" | "q4_0";
  /** Replace a file that is there; false unless given. */
  readonly overwrite?: boolean;
}

/** Writes a model folder as a GGUF file. @throws {UserError} as {@linkcode exportGguf}, or if the folder is damaged */
export async function convertToGguf(
  folder: string,
  path: string,
  { outtype = "f16", overwrite = false }: GgufOptions = {},
  hooks: WorkHooks = {},
): Promise<void> {
  // In this order: what is no model's folder says so by its config.json.
  const config = await readConfig(folder);
  const tokenizer = await Tokenizer.load(folder);
  const weights = await openModelWeights(folder, config);
  try {
    const form = architectureOf(config).gguf;
    if (!form) {
      const known = ARCHITECTURES.filter(({ gguf }) => gguf).flatMap(({ modelTypes }) => modelTypes);
      throw new UserError(
        `Cannot write GGUF: "${folder}" is of model_type "${config.model_type}"; models of type ${
          known.join(", ")
        } can be converted`,
      );
    }
    const problem = form.problem?.(config);
    if (problem !== undefined) throw new UserError(`Cannot write GGUF: ${problem}`);
    const positions = form.hasWindows ? [] : positionNotes(config);
    const notes = [
      ...config.notes,
      ...textAloneNotes(config),
      ...positions,
      ...await tableNotes(folder, config),
    ];
    notes.forEach((line) => hooks.note?.(line));
    const name = basename(folder);
    await exportGguf(path, {
      config,
      form,
      weights,
      tokenizer,
      name,
      type: outtype.toUpperCase() as GgufType,
      overwrite,
      onProgress: (done, total, name) => hooks.onProgress?.(done, total, name),
      note: (line) => hooks.note?.(line),
    });
  } finally {
    weights.close();
  }
}
