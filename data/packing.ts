/** Short documents laid into rows of one length. */
import { NO_TARGET } from "./encode.ts";
import type { Sample } from "./sample.ts";

/** Tokens with their labels. */
export interface Tokens {
  readonly ids: ArrayLike<number>;
  readonly labels: ArrayLike<number>;
}

/** The part of a document that lies in a row. */
interface Piece {
  readonly document: Tokens;
  readonly start: number;
  readonly end: number;
}

/**
 * Lays documents one after the other and cuts the stream into rows of `length` tokens: a document may go on in the next
 * row (LongLoRA, `fine-tune.py`). Only the last row is shorter.
 */
export function packStream(documents: readonly Tokens[], length: number): Sample[] {
  const rows: Piece[][] = [];
  let room = 0;
  for (const document of documents) {
    for (let start = 0; start < document.ids.length;) {
      if (room === 0) {
        rows.push([]);
        room = length;
      }
      const end = Math.min(start + room, document.ids.length);
      rows.at(-1)!.push({ document, start, end });
      room -= end - start;
      start = end;
    }
  }
  return rows.map(join);
}

/**
 * Lays whole documents into as few rows of at most `length` tokens as first-fit decreasing finds (at most 11/9 of the
 * fewest, Johnson 1973); documents are not cut, and none may be longer than a row.
 */
export function packWhole(documents: readonly Tokens[], length: number): Sample[] {
  const rows: { pieces: Piece[]; room: number }[] = [];
  for (const document of [...documents].sort((a, b) => b.ids.length - a.ids.length)) {
    const size = document.ids.length;
    let row = rows.find(({ room }) => room >= size);
    if (!row) rows.push(row = { pieces: [], room: length });
    row.pieces.push({ document, start: 0, end: size });
    row.room -= size;
  }
  return rows.map(({ pieces }) => join(pieces));
}

function join(pieces: readonly Piece[]): Sample {
  const size = pieces.reduce((sum, { start, end }) => sum + end - start, 0);
  const inputIds = new Uint32Array(size);
  const labels = new Int32Array(size);
  const documents = new Uint32Array(pieces.length);
  let at = 0;
  for (const [i, { document, start, end }] of pieces.entries()) {
    documents[i] = at;
    for (let t = start; t < end; t++, at++) {
      inputIds[at] = document.ids[t]!;
      labels[at] = document.labels[t]!;
    }
  }
  return { inputIds, labels, documents };
}

/** Tokens of a sample that are predicted from the one before them. */
export function countTargets({ labels, documents }: Sample): number {
  const starts = new Set<number>(documents ?? [0]);
  let targets = 0;
  labels.forEach((label, i) => {
    if (i > 0 && label !== NO_TARGET && !starts.has(i)) targets++;
  });
  return targets;
}
