import { type AttentionRule, makeAttentionMap } from "../kernels/attention/map.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { NO_LABEL } from "../kernels/loss/cross_entropy.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { AttentionMap } from "../kernels/attention/map.ts";

/** A sequence to run or train on. */
export interface Sequence {
  /** (T) token ids. */
  readonly inputIds: Uint32Array;
  /** (T) what is trained at each position, negative for nothing; label i is predicted from position i - 1. */
  readonly labels?: Int32Array;
  /** Start of each packed document, which then see only themselves. */
  readonly documents?: Uint32Array;
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
}

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
  return { tokens, labels, positions, starts, documents, rows, targets };
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
  const { rows, starts, documents } = batch;
  const longest = longestOf(batch);
  const byRule = new Map<AttentionRule["window"], AttentionMap>();
  const maps = new Map<number | null, AttentionMap>();
  for (const window of new Set(windows)) {
    const own = layerRule(rule, window, longest);
    const map = byRule.get(own.window) ?? makeAttentionMap(gpu, { rows, starts, documents, ...own });
    byRule.set(own.window, map);
    maps.set(window, map);
  }
  return {
    batch,
    tokens: gpu.tensor([rows], batch.tokens, { label: "tokens" }),
    labels: gpu.tensor([rows], batch.labels, { label: "labels" }),
    positions: gpu.tensor([rows], batch.positions, { label: "positions" }),
    maps,
  };
}

/** Frees what {@linkcode uploadBatch} made. */
export function freeBatch({ tokens, labels, positions, maps }: DeviceBatch): void {
  for (const each of [tokens, labels, positions, ...new Set(maps.values())]) each.free();
}

/** Counts the tokens of the longest sequence. */
export function longestOf({ positions }: Pick<Batch, "positions">): number {
  let last = 0;
  for (const position of positions) last = Math.max(last, position);
  return last + 1;
}
