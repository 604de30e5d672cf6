/**
 * What kernels on matrix units count on, tried one thing at a time on integers that f16 holds, so that a device that is
 * wrong says where: loads of either factor, factors whose memory is overwritten, sums that begin at zero or come back
 * from memory, f16 written one by one, the numbers of lanes. Sizes are those of the device's own matrices.
 */
import type { Gpu } from "../gpu.ts";
import type { Risk, Verdict } from "../refusal.ts";
import { type MatrixUnit, matrixUnit, onUnit, unitConstants } from "../shared/matrix_unit.ts";
import { type Part, runTrial, type Trial } from "../trial.ts";
import type { Kernel } from "../wgsl.ts";
import f16StoresWgsl from "./f16_stores.wgsl" with { type: "text" };
import foldsWgsl from "./folds.wgsl" with { type: "text" };
import lanesWgsl from "./lanes.wgsl" with { type: "text" };
import loadWgsl from "./load.wgsl" with { type: "text" };
import overwriteWgsl from "./overwrite.wgsl" with { type: "text" };
import placesKnownWgsl from "./places_known.wgsl" with { type: "text" };
import placesToldWgsl from "./places_told.wgsl" with { type: "text" };
import resetWgsl from "./reset.wgsl" with { type: "text" };
import sumsWgsl from "./sums.wgsl" with { type: "text" };
import halvesWgsl from "./tile_halves.wgsl" with { type: "text" };
import storedWgsl from "./tile_stored.wgsl" with { type: "text" };
import wordsWgsl from "./tile_words.wgsl" with { type: "text" };

/** What a trial of matrix units is about. */
export const MATRIX_TOPICS = ["loads", "overwrite", "reset", "sums", "f16 stores", "lanes"] as const;
export type MatrixTopic = typeof MATRIX_TOPICS[number];

/** What attention counts on: all of it. */
const ATTENTION: readonly Risk[] = ["attention by matrices", "attention gradients by matrices"];
/** What products count on too. */
const BOTH: readonly Risk[] = ["matmul by matrices", ...ATTENTION];

/** Where the first matrix lies, in elements. */
const AT = 8;
/**
 * Elements of a line of memory past the matrix, and numbers of matrices held. A processor's driver, which writes out the
 * lanes of each product, takes half a second to compile one.
 */
const EXTENTS = {
  gpu: { pads: [0, 8, 24, 120], held: [1, 2, 8] },
  software: { pads: [24], held: [2] },
} as const;
const SUBGROUPS = 4;

/** The memory that matrices are loaded from. */
const TILES = {
  "f16 in workgroup memory": halvesWgsl,
  "words in workgroup memory": wordsWgsl,
  "words in storage": storedWgsl,
} as const;
type Tile = keyof typeof TILES;

const PLACES = { "known to the compiler": placesKnownWgsl, "known at run time": placesToldWgsl } as const;

/** The topic of a trial, by the kernel that its verdict names; `undefined` if it is no trial of matrix units. */
export function topicOf(kernel: string): MatrixTopic | undefined {
  return MATRIX_TOPICS.find((topic) => kernel.startsWith(`matrix units, ${topic}`));
}

/** Lists the trials of a device's matrix units: none where kernels use none. */
export function matrixTrials(gpu: Gpu): Trial[] {
  const unit = matrixUnit(gpu.info);
  if (!unit) return [];
  const { pads, held } = EXTENTS[gpu.info.isSoftware ? "software" : "gpu"];
  return [
    ...(Object.keys(TILES) as Tile[]).flatMap((tile) =>
      (Object.keys(PLACES) as (keyof typeof PLACES)[]).map((places) => loads(unit, pads, tile, places))
    ),
    ...held.map((count) => overwrite(unit, count)),
    reset(unit),
    sums(unit),
    f16Stores(unit),
    lanes(unit),
  ];
}

/** Runs all trials of a device's matrix units, each failure on a device that is opened again. */
export async function tryMatrixUnits(open: () => Promise<Gpu>): Promise<Verdict[]> {
  const verdicts: Verdict[] = [];
  let gpu = await open();
  for (const trial of matrixTrials(gpu)) {
    verdicts.push(await runTrial(gpu, trial));
    if (verdicts.at(-1)!.failure === null) continue;
    gpu.close();
    gpu = await open();
  }
  gpu.close();
  return verdicts;
}

/** The integer of an element, as folds.wgsl has it. */
function valueOf(element: number, seed = 0): number {
  return (7 * element + 3 + 97 * seed) % 251;
}

/** Product (rows, columns) of the factor that folds.wgsl makes with `right` (depth, columns). */
function foldLeft(rows: number, depth: number, columns: number, right: (k: number, n: number) => number) {
  return product(rows, depth, columns, (i, k) => fold(i, k, rows, depth), right);
}

/** Product (rows, columns) of `left` (rows, depth) with the factor that folds.wgsl makes. */
function foldRight(rows: number, depth: number, columns: number, left: (i: number, k: number) => number) {
  return product(rows, depth, columns, left, (k, n) => fold(n, k, columns, depth));
}

function fold(a: number, b: number, aSize: number, bSize: number): number {
  return Number(aSize <= bSize ? b % aSize === a : a % bSize === b);
}

function product(
  rows: number,
  depth: number,
  columns: number,
  left: (i: number, k: number) => number,
  right: (k: number, n: number) => number,
): number[] {
  return Array.from({ length: rows * columns }, (_, at) => {
    const [i, n] = [Math.floor(at / columns), at % columns];
    let sum = 0;
    for (let k = 0; k < depth; k++) sum += left(i, k) * right(k, n);
    return sum;
  });
}

/** Makes a trial of a kernel of one workgroup. `y` gets as many values as are expected. */
function trial(
  { M, N, K, lanes, ...unit }: MatrixUnit,
  topic: MatrixTopic,
  { detail, wgsl, libraries = [], constants = {}, uniforms, stored, parts, expected }: {
    readonly detail?: string;
    readonly wgsl: string;
    readonly libraries?: readonly string[];
    readonly constants?: Readonly<Record<string, number>>;
    readonly uniforms?: Readonly<Record<string, number>>;
    /** Elements of f16 that the host writes. */
    readonly stored?: readonly number[];
    readonly parts: readonly Part[];
    readonly expected: readonly number[];
  },
): Trial {
  const name = `matrix units, ${topic}${detail === undefined ? "" : `, ${detail}`}`;
  const of = { M, N, K, lanes, ...unit };
  const pieces = { ...onUnit(of, wgsl), constants: unitConstants(of) };
  const isOfLanes = topic === "lanes";
  const kernel: Kernel = {
    name,
    wgsl: pieces.wgsl,
    libraries: isOfLanes ? [] : [...pieces.libraries, foldsWgsl, ...libraries],
    constants: { ...(isOfLanes ? { LANES: lanes } : pieces.constants), ...constants },
  };
  return {
    kernel: name,
    risks: ATTENTION,
    tolerance: 0,
    parts,
    run: async (gpu) => {
      const y = gpu.empty([expected.length], "f32", "trial");
      const tile = stored && gpu.tensor([stored.length], Uint8Array.from(f16Bytes(stored)), { dtype: "f16" });
      gpu.run(kernel, { y, ...(tile && { tile }) }, { grid: [1], ...(uniforms && { uniforms }) });
      const values = await gpu.read(y);
      y.free();
      tile?.free();
      return [values, expected];
    },
  };
}

/** Small integers as f16. */
function f16Bytes(values: readonly number[]): Uint8Array {
  return new Uint8Array(Float16Array.from(values).buffer);
}

function loads(unit: MatrixUnit, pads: readonly number[], tile: Tile, places: keyof typeof PLACES): Trial {
  const { M, N, K } = unit;
  const side = Math.max(M, N, K);
  const lines = pads.map((pad) => side + pad);
  const length = AT + side * Math.max(...lines);
  const isTold = places === "known at run time";
  const isStored = tile === "words in storage";
  const parts = lines.flatMap((line) =>
    ["Left by rows", "Left by columns", "Right by rows", "Right by columns"].map((what) => ({
      name: `${what}, lines of ${line}`,
      length: M * N,
      ...(!isStored && /Left by rows|Right by columns/.test(what) && { risks: BOTH }),
    }))
  );
  const expected = lines.flatMap((line) => {
    const [byRows, byColumns] = [
      (row: number, column: number) => valueOf(AT + row * line + column),
      (row: number, column: number) => valueOf(AT + column * line + row),
    ] as const;
    return [
      ...foldRight(M, K, N, byRows),
      ...foldRight(M, K, N, byColumns),
      ...foldLeft(M, K, N, byRows),
      ...foldLeft(M, K, N, byColumns),
    ];
  });
  return trial(unit, "loads", {
    detail: `${tile}, places ${places}`,
    wgsl: loadWgsl,
    libraries: [TILES[tile], PLACES[places]],
    constants: {
      ...(isStored ? {} : { TILE: length }),
      LINES: lines.length,
      ...(isTold ? {} : { AT, ...named("LINE", lines) }),
    },
    ...(isTold && { uniforms: { at: AT, ...named("line", lines) } }),
    ...(isStored && { stored: Array.from({ length }, (_, element) => valueOf(element)) }),
    parts,
    expected,
  });
}

/** Four lengths of lines by name; the last stands for those that are not there. */
function named(name: string, lines: readonly number[]): Record<string, number> {
  return Object.fromEntries([0, 1, 2, 3].map((i) => [`${name}_${i}`, lines[i] ?? lines.at(-1)!]));
}

function overwrite(unit: MatrixUnit, count: number): Trial {
  const { M, N, K } = unit;
  const turns = ["once", "in the first turn of a loop", "in the second turn of a loop"];
  const held = [...Array(count).keys()];
  return trial(unit, "overwrite", {
    detail: count === 1 ? "1 matrix held" : `${count} matrices held`,
    wgsl: overwriteWgsl,
    libraries: [halvesWgsl],
    constants: { COUNT: count, TILE: count * M * K },
    uniforms: { turns: 2 },
    parts: turns.map((name) => ({ name: `used ${name}`, length: count * M * N })),
    expected: turns.flatMap(() =>
      held.flatMap((at) => foldRight(M, K, N, (i, k) => valueOf((at * M + i) * K + k)))
    ),
  });
}

function reset(unit: MatrixUnit): Trial {
  const { M, N, K } = unit;
  const ways = [
    "Sums() in a loop",
    "Sums(0.0) in a loop",
    "multiplied without sums before",
    "Sums() outside a loop, and in it",
  ];
  const turns = [0, 1, 2, 3].map((j) => foldLeft(M, K, N, (k, n) => valueOf((j * N + n) * K + k)));
  const expected = Array.from({ length: 4 * M * N }, (_, at) => {
    const [i, column] = [Math.floor(at / (4 * N)), at % (4 * N)];
    return turns[Math.floor(column / N)]![i * N + column % N]!;
  });
  return trial(unit, "reset", {
    wgsl: resetWgsl,
    libraries: [halvesWgsl],
    constants: { TILE: 4 * N * K },
    uniforms: { turns: 4 },
    parts: ways.map((name) => ({ name, length: expected.length })),
    expected: ways.flatMap(() => expected),
  });
}

function sums(unit: MatrixUnit): Trial {
  const { M, N, K } = unit;
  const once = foldLeft(M, K, N, (k, n) => valueOf(n * K + k));
  const scaled = once.map((value, at) => value * (Math.floor(at / N) + 1));
  const added = scaled.map((value, at) => value + once[at]!);
  return trial(unit, "sums", {
    wgsl: sumsWgsl,
    libraries: [halvesWgsl],
    constants: { TILE: N * K },
    parts: [
      `loaded, lines of ${N}`,
      `loaded, lines of ${2 * N + 4}`,
      `added to, lines of ${N}`,
      `added to, lines of ${2 * N + 4}`,
      "stored to storage",
    ].map((name) => ({ name, length: M * N, risks: BOTH })),
    expected: [...scaled, ...scaled, ...added, ...added, ...once],
  });
}

function f16Stores(unit: MatrixUnit): Trial {
  const { M, N, K } = unit;
  const values = Array.from({ length: M * 2 * K }, (_, element) => valueOf(element));
  const [low, high] = [0, 1].map((j) => foldRight(M, K, N, (i, k) => valueOf(i * 2 * K + j * K + k)));
  return trial(unit, "f16 stores", {
    wgsl: f16StoresWgsl,
    parts: [
      { name: "read by other lanes", length: M * 2 * K },
      { name: "read in pairs", length: M * 2 * K },
      { name: "loaded as matrices", length: M * 2 * N },
    ].map((part) => ({ ...part, risks: BOTH })),
    expected: [
      ...values,
      ...values,
      ...Array.from({ length: M }, (_, i) => [low!, high!].flatMap((half) => half.slice(i * N, i * N + N)))
        .flat(),
    ],
  });
}

function lanes(unit: MatrixUnit): Trial {
  const shuffles = Math.log2(unit.lanes);
  const threads = [...Array(SUBGROUPS * unit.lanes).keys()];
  return trial(unit, "lanes", {
    wgsl: lanesWgsl,
    constants: { SUBGROUPS, SHUFFLES: shuffles },
    parts: [
      { name: "numbers of lanes", length: threads.length, risks: BOTH },
      ...Array.from(
        { length: shuffles },
        (_, s) => ({ name: `shuffle by ${2 ** s}`, length: threads.length, risks: BOTH }),
      ),
    ],
    expected: [
      ...threads,
      ...Array.from({ length: shuffles }, (_, s) => threads.map((thread) => (thread % unit.lanes) ^ 2 ** s))
        .flat(),
    ],
  });
}
