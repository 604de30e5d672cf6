import type { Gpu } from "../gpu.ts";
import type { Tensor } from "../tensor.ts";

/** Which keys a query may see besides being no later than itself; all of them unless something is set. */
export interface AttentionRule {
  /** G of shifted sparse attention, in tokens; full attention unless set. */
  readonly groupSize?: number | undefined;
  /** Whether the groups of half of the heads lie between those of the others; true unless set. */
  readonly shift?: boolean | undefined;
  /** Most keys that a query sees, itself included (Mistral's sliding window). */
  readonly window?: number | undefined;
}

/** What the rows of a batch are: its sequences one after the other, without padding. */
export interface RowLayout extends AttentionRule {
  /** First row of each sequence, ascending, from 0. */
  readonly starts: readonly number[];
  /** Rows in all. */
  readonly rows: number;
  /** First row of each document packed into the sequences, where tokens must not see other documents. */
  readonly documents?: readonly number[];
}

/** Who sees whom, as two tables of two sets: set 0 for the unshifted half of the query heads, set 1 for the shifted half. */
export interface KeyTables {
  /** (2, rows) Query row i sees the key rows first[i] to i. Never falls within a set. */
  readonly first: Uint32Array<ArrayBuffer>;
  /** (2, rows) Key row j is seen by the query rows j to last[j]. Never falls within a set. */
  readonly last: Uint32Array<ArrayBuffer>;
}

/** The tables on the device, uploaded once for all layers of a batch. */
export interface AttentionMap {
  readonly first: Tensor;
  readonly last: Tensor;
  readonly rows: number;
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
  for (const set of [0, 1]) {
    // Boundaries lie at k G - lead: the first shifted group has floor(G/2) tokens, for odd G too.
    const lead = set === 0 || !shift ? 0 : groupSize - Math.floor(groupSize / 2);
    const at = set * rows;
    let sequence = 0;
    let document = 0;
    let seen = 0;
    for (let row = 0; row < rows; row++) {
      while (sequence + 1 < starts.length && starts[sequence + 1]! <= row) sequence++;
      while (document + 1 < documents.length && documents[document + 1]! <= row) document++;
      const start = starts[sequence]!;
      const position = row - start;
      const group = groupSize === Infinity ? 0 : Math.floor((position + lead) / groupSize) * groupSize - lead;
      first[at + row] = Math.max(start, start + group, documents[document] ?? 0, row - window + 1);
      while (seen < first[at + row]!) last[at + seen++] = row - 1;
    }
    last.fill(rows - 1, at + seen, at + rows);
  }
  return { first, last };
}

/** Uploads the tables of {@linkcode firstKeys}. The caller frees them. */
export function makeAttentionMap(gpu: Gpu, layout: RowLayout): AttentionMap {
  const tables = firstKeys(layout);
  const shape = [2 * layout.rows];
  const first = gpu.tensor(shape, tables.first, { label: "first keys" });
  const last = gpu.tensor(shape, tables.last, { label: "last queries" });
  return {
    first,
    last,
    rows: layout.rows,
    tables,
    free() {
      first.free();
      last.free();
    },
  };
}

/**
 * Blocks of `keys` keys that the forward kernel visits for a head of each set, with `queries` queries in a block:
 * its cost. Unshifted heads first.
 */
export function countKeyBlocks(
  { first }: KeyTables,
  { queries, keys }: { queries: number; keys: number },
): [number, number] {
  const rows = first.length / 2;
  const count = (at: number) => {
    let blocks = 0;
    for (let row = 0; row < rows; row += queries) {
      const end = Math.min(row + queries, rows);
      blocks += Math.ceil((end - first[at + row]!) / keys);
    }
    return blocks;
  };
  return [count(0), count(rows)];
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
