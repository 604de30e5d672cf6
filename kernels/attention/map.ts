/**
 * The attention mask, as two tables of the first key that each query may see: never more memory than two numbers a row.
 *
 * Shifted sparse attention of one sequence of 8 tokens with G = 4, and full attention of two documents, of 3 and 5
 * tokens, packed into one (`x`: the query of the row sees the key of the column; the number: `first`):
 *
 *     half of the heads        the other half           packed documents
 *     x . . . . . . .   0      x . . . . . . .   0      x . . . . . . .   0
 *     x x . . . . . .   0      x x . . . . . .   0      x x . . . . . .   0
 *     x x x . . . . .   0      . . x . . . . .   2      x x x . . . . .   0
 *     x x x x . . . .   0      . . x x . . . .   2      . . . x . . . .   3
 *     . . . . x . . .   4      . . x x x . . .   2      . . . x x . . .   3
 *     . . . . x x . .   4      . . x x x x . .   2      . . . x x x . .   3
 *     . . . . x x x .   4      . . . . . . x .   6      . . . x x x x .   3
 *     . . . . x x x x   4      . . . . . . x x   6      . . . x x x x x   3
 *
 * A packed batch under S2-Attn is cut where either cuts. A window raises `first` further.
 */
import type { Gpu } from "../gpu.ts";
import type { RowRange } from "../shared/row_chunks.ts";
import { ROW_ALIGNMENT, type Tensor } from "../tensor.ts";

/** Which keys a query may see besides being no later than itself; all of them unless something is set. */
export interface AttentionRule {
  /** G of shifted sparse attention, in tokens; full attention unless set. */
  readonly groupSize?: number | undefined;
  /** Whether the groups of half of the heads lie between those of the others; true unless set. */
  readonly shift?: boolean | undefined;
  /** Most keys that a query sees, itself included (Mistral's sliding window). */
  readonly window?: number | undefined;
}

/** Rows of a batch: its sequences one after the other, without padding. */
export interface RowLayout extends AttentionRule {
  /** First row of each sequence, ascending, from 0. */
  readonly starts: readonly number[];
  /** Rows in all. */
  readonly rows: number;
  /** First row of each document packed into the sequences, where tokens must not see other documents. */
  readonly documents?: readonly number[];
}

/** Mask as two tables of two sets: set 0 for the unshifted half of the query heads, set 1 for the shifted half. */
export interface KeyTables {
  /** (2, rows) Query row i sees the key rows first[i] to i. Never falls within a set. */
  readonly first: Uint32Array<ArrayBuffer>;
  /** (2, rows) Key row j is seen by the query rows j to last[j]. Never falls within a set. */
  readonly last: Uint32Array<ArrayBuffer>;
}

/** The attention mask of a batch on the device, uploaded once for all layers. */
export interface AttentionMap {
  readonly first: Tensor;
  readonly last: Tensor;
  /** Rows of keys. */
  readonly rows: number;
  /** Rows of keys before that of the first query: 0 for a whole batch. */
  readonly before: number;
  /** Most keys that a query sees, itself included; no key is seen by more queries. */
  readonly reach: number;
  /** The same tables on the host, from which work that no row needs is left out. */
  readonly tables: KeyTables;
  free(): void;
}

/**
 * Computes the first key that each query may see. Full attention, shifted sparse attention (LongLoRA, arXiv
 * 2309.12307, in the form without wrap-around) and packed documents differ in nothing else.
 *
 * Groups are cut at multiples of G from the start of a sequence; for the shifted heads the first group has only
 * floor(G/2) tokens. What a boundary cuts off stays cut off: a query sees its group up to itself.
 * @throws {RangeError} if the rows are not laid out as promised
 */
export function firstKeys(layout: RowLayout): KeyTables {
  const { starts, rows, groupSize = Infinity, shift = true, window = Infinity, documents = [] } = layout;
  checkStarts("Sequences", starts, rows);
  if (documents.length > 0) checkStarts("Documents", documents, rows);
  if (!(groupSize === Infinity || Number.isInteger(groupSize)) || groupSize < 1) {
    throw new RangeError(
      `Attention groups must have a whole number of tokens, 1 or more; got ${groupSize}`,
    );
  }
  const first = new Uint32Array(2 * rows);
  const last = new Uint32Array(2 * rows);
  for (
    const [at, firstGroup] of [[0, groupSize], [rows, shift ? Math.floor(groupSize / 2) : groupSize]] as const
  ) {
    const cuts = [...starts, ...documents];
    starts.forEach((start, i) => {
      const end = starts[i + 1] ?? rows;
      for (let cut = start + firstGroup; cut < end; cut += groupSize) cuts.push(cut);
    });
    cuts.sort((a, b) => a - b).forEach((from, i) => {
      const to = cuts[i + 1] ?? rows;
      first.fill(from, at + from, at + to);
      last.fill(to - 1, at + from, at + to);
    });
    for (let row = 0; row < rows && window < rows; row++) {
      first[at + row] = Math.max(first[at + row]!, row - window + 1);
      last[at + row] = Math.min(last[at + row]!, row + window - 1);
    }
  }
  return { first, last };
}

/** Counts the rows before those from `start` on which the latter's queries see. */
export function rowsSeenBefore({ first }: KeyTables, start: number): number {
  return start - Math.min(first[start]!, first[first.length / 2 + start]!);
}

/**
 * Cuts out the tables of some rows of a batch, as the queries, and of the rows before them that they see. Of those there
 * are {@linkcode rowsSeenBefore}, and more until {@linkcode ROW_ALIGNMENT} divides them, which nothing sees.
 */
export function cutTables(
  whole: KeyTables,
  { start, end }: RowRange,
): { readonly tables: KeyTables; readonly before: number } {
  const before = Math.ceil(rowsSeenBefore(whole, start) / ROW_ALIGNMENT) * ROW_ALIGNMENT;
  const [rows, offset] = [before + end - start, start - before];
  const cut = (table: Uint32Array, value: (at: number, table: Uint32Array) => number) => {
    const sets = [table.subarray(0, table.length / 2), table.subarray(table.length / 2)];
    return Uint32Array.from({ length: 2 * rows }, (_, i) => {
      const row = i % rows;
      return row + offset < 0 ? 0 : value(row + offset, sets[i < rows ? 0 : 1]!) - offset;
    });
  };
  return {
    tables: {
      // Nobody asks what rows before the first query see.
      first: cut(whole.first, (at, first) => Math.min(at, first[Math.max(at, start)]!)),
      last: cut(whole.last, (at, last) => Math.min(last[at]!, end - 1)),
    },
    before,
  };
}

/** Uploads the tables of {@linkcode firstKeys}. The caller frees them. */
export function makeAttentionMap(gpu: Gpu, layout: RowLayout): AttentionMap {
  return uploadTables(gpu, firstKeys(layout));
}

/**
 * Uploads tables. The caller frees them.
 * @param before rows of keys before that of the first query; 0 unless given
 */
export function uploadTables(gpu: Gpu, tables: KeyTables, before = 0): AttentionMap {
  const rows = tables.first.length / 2;
  const first = gpu.tensor([2 * rows], tables.first, { label: "first keys" });
  const last = gpu.tensor([2 * rows], tables.last, { label: "last queries" });
  return {
    first,
    last,
    rows,
    before,
    reach: tables.first.reduce((most, first, i) => Math.max(most, i % rows + 1 - first), 0),
    tables,
    free() {
      first.free();
      last.free();
    },
  };
}

function checkStarts(what: string, starts: readonly number[], rows: number): void {
  const ascending = starts.every((start, i) =>
    Number.isInteger(start) && (i === 0 || start > starts[i - 1]!)
  );
  if (starts[0] !== 0 || !ascending || starts.at(-1)! >= rows) {
    throw new RangeError(
      `${what} must start at ascending rows from 0 to below ${rows}; got [${starts.slice(0, 8)}]`,
    );
  }
}
