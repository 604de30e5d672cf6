import { firstKeys, type RowLayout } from "../../kernels/attention/map.ts";
import { ALL_PARTS } from "../../kernels/attention/variants.ts";
import { visitedPairs } from "../../kernels/attention/visits.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { integers } from "../support/random.ts";

/** Rows where a new group begins, and the end: the form in which the published code states its groups. */
function boundaries(layout: RowLayout): [number[], number[]] {
  const { first } = firstKeys(layout);
  const { rows } = layout;
  const of = (table: Uint32Array) => [...new Set(table), rows];
  return [of(first.subarray(0, rows)), of(first.subarray(rows))];
}

Deno.test("firstKeys() cuts groups where LongLoRA's published code does", () => {
  const cases: [number, number, number[], number[]][] = [
    [8192, 2048, [0, 2048, 4096, 6144, 8192], [0, 1024, 3072, 5120, 7168, 8192]],
    [9243, 8192, [0, 8192, 9243], [0, 4096, 9243]],
    [12, 3, [0, 3, 6, 9, 12], [0, 1, 4, 7, 10, 12]],
    [5, 1, [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]],
  ];
  for (const [rows, groupSize, unshifted, shifted] of cases) {
    assertEquals(
      boundaries({ starts: [0], rows, groupSize }),
      [unshifted, shifted],
      `N = ${rows}, G = ${groupSize}`,
    );
  }
});

Deno.test("firstKeys() counts groups from each sequence and cuts them at documents", () => {
  assertEquals(boundaries({ starts: [0, 10], rows: 16, groupSize: 4 }), [
    [0, 4, 8, 10, 14, 16],
    [0, 2, 6, 10, 12, 16],
  ]);
  assertEquals(boundaries({ starts: [0], rows: 16, groupSize: 4, documents: [0, 5, 8] }), [
    [0, 4, 5, 8, 12, 16],
    [0, 2, 5, 6, 8, 10, 14, 16],
  ]);
  assertEquals(boundaries({ starts: [0, 10], rows: 16, documents: [0, 5, 12] }), [
    [0, 5, 10, 12, 16],
    [0, 5, 10, 12, 16],
  ]);
});

Deno.test("Groups that hold the whole sequence are full attention, unshifted and shifted", () => {
  const rows = 64;
  const full = [[0, rows], [0, rows]];
  assertEquals(boundaries({ starts: [0], rows }), full);
  assertEquals(boundaries({ starts: [0], rows, groupSize: 2 * rows }), full);
  assertEquals(boundaries({ starts: [0], rows, groupSize: rows }), [[0, rows], [0, rows / 2, rows]]);
  assertEquals(boundaries({ starts: [0], rows, groupSize: rows - 1 })[0], [0, rows - 1, rows]);
});

Deno.test("Who sees whom is the definition's, and last is the inverse of first", () => {
  for (let seed = 0; seed < 40; seed++) {
    const [rows, groupSize, ...cuts] = integers(seed, 8, 40).map((x) => x + 1);
    const starts = [...new Set([0, ...cuts!.slice(0, 2)])].filter((x) => x < rows!).sort((a, b) => a - b);
    const documents = [...new Set([0, ...cuts!.slice(2)])].filter((x) => x < rows!).sort((a, b) => a - b);
    const [shift, window] = [seed % 3 > 0, seed % 4 === 0 ? 1 + seed % 7 : Infinity];
    const { first, last } = firstKeys({
      starts,
      rows: rows!,
      groupSize: groupSize!,
      documents,
      shift,
      window,
    });
    const indexOf = (cut: number[], row: number) => cut.findLastIndex((start) => start <= row);
    for (const table of [0, 1]) {
      const groupOf = (row: number) => {
        const position = row - starts[indexOf(starts, row)]!;
        const half = Math.floor(groupSize! / 2);
        return Math.floor((table === 0 || !shift ? position : position - half) / groupSize!);
      };
      for (let i = 0; i < rows!; i++) {
        for (let j = 0; j < rows!; j++) {
          const sees = j <= i && indexOf(starts, i) === indexOf(starts, j) &&
            indexOf(documents, i) === indexOf(documents, j) && groupOf(i) === groupOf(j) &&
            i - j < window;
          const label = `seed ${seed}: table ${table}, query ${i}, key ${j}`;
          assertEquals(first[table * rows! + i]! <= j && j <= i, sees, `${label}, first`);
          assertEquals(j <= i && i <= last[table * rows! + j]!, sees, `${label}, last`);
        }
      }
    }
  }
});

Deno.test("visitedPairs() counts what is seen, and what blocks take along", () => {
  const map = (layout: Omit<RowLayout, "starts">) => ({ tables: firstKeys({ starts: [0], ...layout }) });
  const heads = 2;
  assertEquals(visitedPairs(map({ rows: 7 }), { heads }), 2 * 28);
  assertEquals(visitedPairs(map({ rows: 8, groupSize: 4 }), { heads: 3 }), 20 + 20 + 16);
  const layouts = [{ rows: 64, groupSize: 16 }, { rows: 61, groupSize: 13, documents: [0, 5, 40] }];
  for (const part of ALL_PARTS) {
    const block = { rows: 8, columns: 4 };
    assertEquals(visitedPairs(map({ rows: 64 }), { heads }, { part, block }), 2 * 36 * 64);
    for (const layout of layouts) {
      const { first } = firstKeys({ starts: [0], ...layout });
      const { rows } = layout;
      let steps = 0;
      for (const set of [0, rows]) {
        for (let start = 0; start < rows; start += block.rows) {
          const mine = (row: number) => row >= start && row < start + block.rows;
          const sees = (query: number, key: number) => first[set + query]! <= key && key <= query;
          const others = Array.from({ length: rows }, (_, other) => other).filter((other) =>
            Array.from({ length: rows }, (_, row) => row).some((row) =>
              mine(row) && (part === "dkv" ? sees(other, row) : sees(row, other))
            )
          );
          steps += Math.ceil((others.at(-1)! + 1 - others[0]!) / block.columns);
        }
      }
      const label = `${part} of ${JSON.stringify(layout)}`;
      assertEquals(visitedPairs(map(layout), { heads }, { part, block }), steps * 32, label);
    }
  }
});

Deno.test("Blocks of S2 cost what its formula says: flat over the length at fixed G, under 0.3 of full at G = N / 4", () => {
  const layout = (rows: number, groupSize?: number) => ({
    tables: firstKeys({ starts: [0], rows, ...(groupSize ? { groupSize } : {}) }),
  });
  for (const part of ALL_PARTS) {
    for (const block of [{ rows: 64, columns: 64 }, { rows: 40, columns: 1 }]) {
      const perToken = [8192, 16384, 32768, 65536].map((rows) =>
        visitedPairs(layout(rows, 2048), { heads: 32 }, { part, block }) / rows
      );
      const spread = Math.max(...perToken) / Math.min(...perToken);
      assert(spread < 1.1, `${part}: pairs a token from 8k to 64k are ${perToken}`);
      const s2 = visitedPairs(layout(32768, 8192), { heads: 32 }, { part, block });
      const full = visitedPairs(layout(32768), { heads: 32 }, { part, block });
      assert(s2 < 0.25 * full && s2 > 0.2 * full, `${part}: S2 visits ${s2} of ${full} pairs`);
    }
  }
});

Deno.test("firstKeys() refuses rows laid out otherwise than promised", async () => {
  for (
    const layout of [
      { starts: [1], rows: 4 },
      { starts: [], rows: 4 },
      { starts: [0, 4], rows: 4 },
      { starts: [0, 2, 2], rows: 4 },
      { starts: [0], rows: 4, documents: [2, 3] },
      { starts: [0], rows: 4, groupSize: 0 },
      { starts: [0], rows: 4, groupSize: 1.5 },
    ]
  ) {
    await assertThrows(() => firstKeys(layout), "must");
  }
});
