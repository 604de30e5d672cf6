/** Sequences as rows without padding: what each row predicts, where it stands, and who may see it. */
import { firstKeys } from "../../kernels/attention/map.ts";
import { NO_LABEL } from "../../kernels/loss/cross_entropy.ts";
import { makeBatch } from "../../model/batch.ts";
import { assertEquals } from "../support/assert_close.ts";

const NONE = NO_LABEL;

Deno.test("Each row predicts the next token of its own sequence; the last predicts nothing", () => {
  const batch = makeBatch([
    { inputIds: Uint32Array.of(5, 6, 7) },
    { inputIds: Uint32Array.of(8) },
    { inputIds: Uint32Array.of(9, 10) },
  ]);
  assertEquals([...batch.tokens], [5, 6, 7, 8, 9, 10]);
  assertEquals([...batch.labels], [6, 7, NONE, NONE, 10, NONE]);
  assertEquals([...batch.positions], [0, 1, 2, 0, 0, 1]);
  assertEquals([batch.starts, batch.documents, batch.rows, batch.targets], [[0, 3, 4], [0, 3, 4], 6, 3]);
});

Deno.test("Labels follow positions, not ids; negative ones are no targets", () => {
  const batch = makeBatch([{
    inputIds: Uint32Array.of(1, 2, 0, 4, 2),
    // The label of the first token has nothing to predict it from; 0 is a token like any other.
    labels: Int32Array.of(1, -100, 0, -1, 2),
  }]);
  assertEquals([...batch.labels], [NONE, 0, NONE, 2, NONE]);
  assertEquals(batch.targets, 2);
});

Deno.test("Packed documents do not predict one another, and rows keep their place in the sequence", () => {
  const batch = makeBatch([
    { inputIds: Uint32Array.of(1, 2) },
    { inputIds: Uint32Array.of(11, 12, 13, 21, 22, 31), documents: Uint32Array.of(0, 3, 5) },
  ]);
  assertEquals([...batch.labels], [2, NONE, 12, 13, NONE, 22, NONE, NONE]);
  assertEquals([batch.starts, batch.documents, batch.targets], [[0, 2], [0, 2, 5, 7], 4]);
  assertEquals([...batch.positions], [0, 1, 0, 1, 2, 3, 4, 5]);
});

Deno.test("A row sees its own document up to itself, with groups or without", () => {
  const { rows, starts, documents } = makeBatch([
    { inputIds: new Uint32Array(5) },
    { inputIds: new Uint32Array(6), documents: Uint32Array.of(0, 2) },
  ]);
  const full = [0, 0, 0, 0, 0, 5, 5, 7, 7, 7, 7];
  assertEquals([...firstKeys({ rows, starts, documents }).first], [...full, ...full]);
  // Groups of 4 from each sequence's start; shifted ones after a first group of 2.
  assertEquals([...firstKeys({ rows, starts, documents, groupSize: 4 }).first], [
    ...[0, 0, 0, 0, 4, 5, 5, 7, 7, 9, 9],
    ...[0, 0, 2, 2, 2, 5, 5, 7, 7, 7, 7],
  ]);
});

Deno.test("A sequence without any target has none, and a batch of such has targets 0", () => {
  const nothing = { inputIds: Uint32Array.of(3, 4), labels: Int32Array.of(-100, -100) };
  assertEquals(makeBatch([nothing, { inputIds: Uint32Array.of(3) }]).targets, 0);
  assertEquals([...makeBatch([nothing]).labels], [NONE, NONE]);
});
