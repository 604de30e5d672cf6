import {
  type AttentionMap,
  type AttentionRule,
  cutTables,
  firstKeys,
  type KeyTables,
  uploadTables,
} from "../kernels/attention/map.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { NO_LABEL } from "../kernels/loss/cross_entropy.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { RowRange } from "../kernels/shared/row_chunks.ts";
import type { KeyExchange } from "./key_exchange.ts";

/** A sequence to run or train on. */
export interface Sequence {
  /** (T) token ids. */
  readonly inputIds: Uint32Array;
  /** (T) what is trained at each position, negative for nothing; label i is predicted from position i - 1. */
  readonly labels?: Int32Array;
  /** Start of each packed document, which then see only themselves. */
  readonly documents?: Uint32Array;
}

/** Cuts a list into parts of `size`, of which the last may be shorter. */
export function inParts<T>(items: readonly T[], size: number): T[][] {
  return Array.from(
    { length: Math.ceil(items.length / size) },
    (_, i) => items.slice(i * size, (i + 1) * size),
  );
}

/** Sequences one after the other as rows, without padding. */
export interface Batch {
  /** (rows) */
  readonly tokens: Uint32Array<ArrayBuffer>;
  /** (rows) the token each row is to predict, or NO_LABEL. */
  readonly labels: Uint32Array<ArrayBuffer>;
  /** (rows) within the sequence. */
  readonly positions: Uint32Array<ArrayBuffer>;
  /** First row of each sequence. */
  readonly starts: readonly number[];
  /** First row of each document. */
  readonly documents: readonly number[];
  /** Tokens of all sequences. */
  readonly rows: number;
  /** Rows with a label. */
  readonly targets: number;
  /** Tokens of the longest sequence; in a part of a batch, of the whole. */
  readonly longest: number;
  /**
   * Where these rows lie in a batch that several ranks share; undefined for a whole batch.
   * @internal
   */
  readonly part?: BatchPart;
}

/** Rows of a batch that one of several ranks holds. */
export interface BatchPart extends RowRange {
  readonly whole: Batch;
  /**
   * Says how layers with a mask exchange keys and values with the ranks that hold the rows around these.
   * @param tables of the whole batch
   * @returns undefined where nothing is seen across the borders
   */
  exchange(tables: KeyTables): MakeExchange | undefined;
}

/** Makes the exchange of one layer in one pass. @param isRecomputed whether the backward pass runs the layer again */
export type MakeExchange = (isRecomputed: boolean) => KeyExchange;

/** Lays sequences out as rows and shifts their labels to the rows that predict them. */
export function makeBatch(sequences: readonly Sequence[]): Batch {
  const rows = sequences.reduce((sum, { inputIds }) => sum + inputIds.length, 0);
  const tokens = new Uint32Array(rows);
  const labels = new Uint32Array(rows).fill(NO_LABEL);
  const positions = new Uint32Array(rows);
  const starts: number[] = [];
  const documents: number[] = [];
  let targets = 0;
  let start = 0;
  for (const sequence of sequences) {
    starts.push(start);
    for (const document of sequence.documents ?? [0]) documents.push(start + document);
    tokens.set(sequence.inputIds, start);
    for (let i = 0; i < sequence.inputIds.length; i++) positions[start + i] = i;
    const ownLabels = sequence.labels ?? sequence.inputIds;
    const firsts = new Set(sequence.documents);
    for (let i = 1; i < ownLabels.length; i++) {
      // The first token of a packed document is not predicted from the one before it.
      if (ownLabels[i]! < 0 || firsts.has(i)) continue;
      labels[start + i - 1] = ownLabels[i]!;
      targets++;
    }
    start += sequence.inputIds.length;
  }
  const longest = sequences.reduce((most, { inputIds }) => Math.max(most, inputIds.length), 0);
  return { tokens, labels, positions, starts, documents, rows, targets, longest };
}

/** A batch on the device. */
export interface DeviceBatch {
  /** Source of the tensors. */
  readonly batch: Batch;
  /** (rows) u32 */
  readonly tokens: Tensor;
  /** (rows) u32 */
  readonly labels: Tensor;
  /** (rows) u32 */
  readonly positions: Tensor;
  /**
   * Masks: which keys each query sees, by the window of a layer (null: none).
   * @internal
   */
  readonly maps: ReadonlyMap<number | null, AttentionMap>;
  /**
   * By the window of a layer: its exchange with ranks that hold other rows of the batch, where it sees some of them.
   * @internal
   */
  readonly exchanges: ReadonlyMap<number | null, MakeExchange>;
}

/**
 * Gives the rule of a layer with a window. Shifted sparse attention is for layers that see everything: what a window
 * shorter than the sequences makes local already keeps that window, unshifted.
 * @param longest tokens of the longest sequence
 */
export function layerRule(rule: AttentionRule, window: number | null, longest: number): AttentionRule {
  return window !== null && window < longest ? { window } : rule;
}

/**
 * Brings a batch to the device; the caller frees it.
 * @param rule who sees whom within a sequence in layers without a window; full attention unless given
 * @param windows of the model's layers; none unless given
 */
export function uploadBatch(
  gpu: Gpu,
  batch: Batch,
  rule: AttentionRule = {},
  windows: Iterable<number | null> = [null],
): DeviceBatch {
  const { rows, part } = batch;
  const whole = part?.whole ?? batch;
  const byRule = new Map<AttentionRule["window"], Mask>();
  const masks = new Map<number | null, Mask>();
  for (const window of new Set(windows)) {
    const own = layerRule(rule, window, batch.longest);
    const mask = byRule.get(own.window) ?? uploadMask(gpu, firstKeys({ ...whole, ...own }), part);
    byRule.set(own.window, mask);
    masks.set(window, mask);
  }
  return {
    batch,
    tokens: gpu.tensor([rows], batch.tokens, { label: "tokens" }),
    labels: gpu.tensor([rows], batch.labels, { label: "labels" }),
    positions: gpu.tensor([rows], batch.positions, { label: "positions" }),
    maps: new Map([...masks].map(([window, { map }]) => [window, map])),
    exchanges: new Map([...masks].flatMap(([window, { exchange }]) => exchange ? [[window, exchange]] : [])),
  };
}

/** The mask of layers with the same rule. */
interface Mask {
  readonly map: AttentionMap;
  readonly exchange: MakeExchange | undefined;
}

/** @param tables of the whole batch */
function uploadMask(gpu: Gpu, tables: KeyTables, part: BatchPart | undefined): Mask {
  if (!part) return { map: uploadTables(gpu, tables), exchange: undefined };
  const cut = cutTables(tables, part);
  return { map: uploadTables(gpu, cut.tables, cut.before), exchange: part.exchange(tables) };
}

/** Frees what {@linkcode uploadBatch} made. */
export function freeBatch({ tokens, labels, positions, maps }: DeviceBatch): void {
  for (const each of [tokens, labels, positions, ...new Set(maps.values())]) each.free();
}
