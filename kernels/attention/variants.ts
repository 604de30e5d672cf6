/**
 * The kernels of attention, and which serves what: every variant is a source, the blocks that its workgroups take, and
 * what it needs of the device.
 */
import type { GpuInfo } from "../device.ts";
import type { Gpu } from "../gpu.ts";
import { CAP_SCORES } from "../shared/cap_scores.ts";
import type { Risk } from "../refusal.ts";
import { ROW_ALIGNMENT } from "../tensor.ts";
import { chosenVariant, type Tunable } from "../tuning.ts";
import { type MatrixUnit, matrixUnit, onUnit, unitConstants } from "../shared/matrix_unit.ts";
import powersWgsl from "../shared/powers_matrix.wgsl" with { type: "text" };
import type { Format, Kernel } from "../wgsl.ts";
import backwardMatrixWgsl from "./attention_backward_matrix.wgsl" with { type: "text" };
import dkvSubgroupWgsl from "./attention_dkv_subgroup.wgsl" with { type: "text" };
import dkvWorkgroupWgsl from "./attention_dkv_workgroup.wgsl" with { type: "text" };
import dqSubgroupWgsl from "./attention_dq_subgroup.wgsl" with { type: "text" };
import dqWorkgroupWgsl from "./attention_dq_workgroup.wgsl" with { type: "text" };
import statsWgsl from "./attention_stats.wgsl" with { type: "text" };
import halvesWgsl from "./attention_halves_matrix.wgsl" with { type: "text" };
import forwardMatrixWgsl from "./attention_matrix.wgsl" with { type: "text" };
import forwardSubgroupWgsl from "./attention_subgroup.wgsl" with { type: "text" };
import tileWgsl from "./attention_tile.wgsl" with { type: "text" };
import forwardWorkgroupWgsl from "./attention_workgroup.wgsl" with { type: "text" };

/** The kernels: o and lse; the gradient of the queries; the gradients of the keys and values. */
export type Part = "forward" | "dq" | "dkv";

export const ALL_PARTS: readonly Part[] = ["forward", "dq", "dkv"];

/** The tile of scores that one workgroup takes in a step. Its rows are queries in forward and dq, keys in dkv. */
export interface Block {
  /** Rows, whose results it makes. */
  readonly rows: number;
  /** Columns: keys, or queries, that it goes over in one step. */
  readonly columns: number;
}

/** One way to run a part for one head size. All variants of a part bind the same tensors. */
export interface Variant {
  readonly name: string;
  /** Whether it takes q, k, v and dO as {@linkcode HALVES} writes them, and the numbers of heads as constants. */
  readonly takesHalves?: boolean;
  /** Names of its bindings, where they are not the tensors' own. */
  readonly names?: Readonly<Record<string, string>>;
  /** What it is refused with, where drivers differ in what it depends on; plain variants have none. */
  readonly risk?: Risk;
  readonly block: Block;
  readonly kernel: Kernel;
}

/** A class of attention; `part` and `headDim` are of its kind, for measuring. */
export interface AttentionTunable extends Tunable {
  readonly part: Part;
  readonly headDim: number;
  readonly format: Format;
}

/** The variants of a part that a device can run for a head size, the one to try first in front. */
type Family = (gpu: Gpu, part: Part, headDim: number, format: Format) => Variant[];

/** Largest head sizes of the classes. */
const HEAD_SIZES = [32, 64, 128, 256] as const;
type HeadSize = typeof HEAD_SIZES[number];

/** For each row and head lse and the sum of dO * O. */
export const STATS: Kernel = { name: "attention stats", wgsl: statsWgsl };

/** Brings rows of heads into f16 for matrix units, each head with its own scale. */
export const HALVES: Kernel = { name: "attention halves", wgsl: halvesWgsl, libraries: [powersWgsl] };

/** The variant for a part: the tuned one of its class, else the default. */
export function variantFor(gpu: Gpu, part: Part, headDim: number, format: Format = "f32"): Variant {
  const name = chosenVariant(gpu.tuning, tunableOf(gpu, part, headDim, format));
  return variantsOf(gpu, part, headDim, format).find((variant) => variant.name === name)!;
}

/**
 * Every class of attention with the variants that this device can run, the default first. Attention in 16 bits is in
 * classes of its own where the device has matrix units.
 */
export function attentionTunables(gpu: Gpu): readonly AttentionTunable[] {
  return (["f32", "bf16"] as const).flatMap((format) =>
    ALL_PARTS.filter((part) => format === "f32" || mayRound(gpu, part, format)).flatMap((part) =>
      HEAD_SIZES.map((headDim) => ({ ...tunableOf(gpu, part, headDim, format), part, headDim, format }))
    )
  );
}

function tunableOf(gpu: Gpu, part: Part, headDim: number, format: Format): Tunable {
  const all = variantsOf(gpu, part, headDim, format);
  const isRefused = ({ risk }: Variant) => risk !== undefined && gpu.refused.has(risk);
  const [first, ...others] = all.filter((variant) => !isRefused(variant)).map(({ name }) => name);
  // A variant of the class that does not divide this head counts as refused: the default serves it.
  const ofClass = variantsOf(gpu, part, headSizeOf(headDim), format).map(({ name }) => name);
  const refused = [
    ...all.filter(isRefused).map(({ name }) => name),
    ...ofClass.filter((name) => !all.some((variant) => variant.name === name)),
  ];
  const key = `attention ${part} ${headSizeOf(headDim)}${mayRound(gpu, part, format) ? " 16-bit" : ""}`;
  return { key, variants: [first!, ...others], refused };
}

/** Whether this part of attention may be rounded to f16 in this format, on matrix units. */
function mayRound({ info, refused }: Gpu, part: Part, format: Format): boolean {
  return format !== "f32" && matrixUnit(info) !== undefined && !refused.has(MATRIX_RISKS[part]);
}

function variantsOf(gpu: Gpu, part: Part, headDim: number, format: Format): Variant[] {
  const plain: Family[] = gpu.sharing === "subgroup" ? [bySubgroup, byWorkgroup] : [byWorkgroup, bySubgroup];
  return familiesOf(gpu.info, plain).flatMap((family) => family(gpu, part, headDim, format));
}

/** In the order to try them. */
function familiesOf(info: GpuInfo, plain: readonly Family[]): readonly Family[] {
  // On a processor matrices are only emulated.
  return info.isSoftware ? [...plain, byMatrix] : [byMatrix, ...plain];
}

function headSizeOf(headDim: number): HeadSize {
  return HEAD_SIZES.find((size) => headDim <= size)!;
}

/**
 * Rows of a lane, the count to try first in front. More of them share a load and a broadcast, until what a lane
 * holds no longer fits in the first cache: some 16 KiB a workgroup.
 */
const SUBGROUP_ROWS: Record<Part, Record<HeadSize, readonly number[]>> = {
  forward: { 32: [4, 6], 64: [4, 5, 3], 128: [4, 3, 2], 256: [1, 2] },
  dq: { 32: [4, 6], 64: [4, 3, 2], 128: [2, 1], 256: [1] },
  dkv: { 32: [3, 4], 64: [3, 2], 128: [1, 2], 256: [1] },
};

const SUBGROUP_WGSL: Record<Part, string> = {
  forward: forwardSubgroupWgsl,
  dq: dqSubgroupWgsl,
  dkv: dkvSubgroupWgsl,
};

/** Subgroups each for itself: for adapters that run on the CPU. */
function bySubgroup({ info }: Gpu, part: Part, headDim: number): Variant[] {
  if (info.subgroupSize < 8) return [];
  const LANES = Math.min(info.subgroupSize, 32);
  const quads = headDim / 4;
  const PARTS = divisorUpTo(quads, LANES);
  // The forward kernel's softmax has work for each step, which small heads feel.
  const STEP = part === "forward" && headDim <= 32 ? 2 : 1;
  return SUBGROUP_ROWS[part][headSizeOf(headDim)].map((R) => ({
    name: `subgroup ${R}`,
    risk: "attention by subgroups",
    block: { rows: LANES * R, columns: STEP },
    kernel: {
      name: `attention ${part} by subgroups`,
      wgsl: SUBGROUP_WGSL[part],
      libraries: CAP_SCORES,
      constants: { LANES, R, PARTS, QUADS: quads / PARTS, ...(part === "forward" ? { STEP } : {}) },
    },
  }));
}

/** Threads that share a tile, and rows that each holds, by four. */
interface TileShape {
  readonly threadRows: number;
  readonly threadColumns: number;
  readonly rowQuads: number;
}

function tileShape(threadRows: number, threadColumns: number, rowQuads: number): TileShape {
  return { threadRows, threadColumns, rowQuads };
}

/**
 * Tiles by head size, the one to try first on a GPU in front. A thread holds 16 rowQuads scores, twice as many in the
 * backward kernels, and its share of the sums: for 64 rows of 128 elements on 128 threads 64 numbers, in dkv twice as
 * many. More scores a thread mean fewer reads of shared memory for each multiplication, until registers run out.
 */
const TILE_SHAPES: Record<Part, Record<"small" | "large", readonly TileShape[]>> = {
  forward: {
    small: [tileShape(8, 16, 2), tileShape(8, 16, 1), tileShape(16, 8, 1), tileShape(8, 8, 1)],
    large: [tileShape(8, 16, 1), tileShape(16, 16, 1), tileShape(8, 8, 1)],
  },
  dq: {
    small: [tileShape(8, 16, 1), tileShape(8, 16, 2), tileShape(16, 8, 1), tileShape(8, 8, 1)],
    large: [tileShape(8, 16, 1), tileShape(16, 16, 1), tileShape(8, 8, 1)],
  },
  dkv: {
    small: [tileShape(8, 16, 1), tileShape(8, 16, 2), tileShape(16, 16, 1), tileShape(8, 8, 1)],
    large: [tileShape(8, 16, 1), tileShape(16, 16, 1), tileShape(8, 8, 1)],
  },
};

/** By part: the source, pairs of rows that it multiplies into scores, kinds of rows that it sums by weights. */
const WORKGROUP_WGSL: Record<Part, readonly [wgsl: string, products: number, staged: number]> = {
  forward: [forwardWorkgroupWgsl, 1, 2],
  dq: [dqWorkgroupWgsl, 2, 1],
  dkv: [dkvWorkgroupWgsl, 2, 2],
};

/** Tiles in workgroup memory: for GPUs. On the CPU the smallest, which compiles fastest. */
function byWorkgroup({ info, limits }: Gpu, part: Part, headDim: number): Variant[] {
  const shapes = TILE_SHAPES[part][headDim <= 128 ? "small" : "large"]
    .filter(({ threadRows, threadColumns }) =>
      threadRows * threadColumns <= limits.maxComputeInvocationsPerWorkgroup
    );
  return (info.isSoftware ? shapes.toReversed() : shapes)
    .flatMap((shape) => tileVariant(shape, part, headDim, limits.maxComputeWorkgroupStorageSize) ?? []);
}

/** The variant whose tile takes most of a head at a time; `undefined` if none fits in the memory. */
function tileVariant(
  { threadRows: THREAD_ROWS, threadColumns: THREAD_COLS, rowQuads: ROW_QUADS }: TileShape,
  part: Part,
  headDim: number,
  memoryBytes: number,
): Variant | undefined {
  const [wgsl, PRODUCTS, STAGED] = WORKGROUP_WGSL[part];
  const threads = THREAD_ROWS * THREAD_COLS;
  const rows = 4 * THREAD_ROWS * ROW_QUADS;
  const columns = 4 * THREAD_COLS;
  const D4 = headDim / 4;
  const SUMS = Math.ceil(D4 / THREAD_COLS);
  // Rows and columns side by side, or a head, of which threads past the end read on.
  const LINE = odd(Math.max((rows + columns) / 4, SUMS * THREAD_COLS));
  const weightQuads = 4 * THREAD_COLS * odd(rows / 4);
  for (let CHUNK = divisorUpTo(D4, 4); CHUNK > 0; CHUNK = divisorUpTo(D4, CHUNK - 1)) {
    if (16 * (2 * 4 * CHUNK * LINE + weightQuads) > memoryBytes) continue;
    const STAGE = 2 ** Math.floor(Math.log2(4 * CHUNK));
    return {
      name: `workgroup ${rows}x${columns} by ${threads}`,
      block: { rows, columns },
      kernel: {
        name: `attention ${part} by tiles`,
        wgsl,
        libraries: [tileWgsl, ...CAP_SCORES],
        constants: {
          THREAD_ROWS,
          THREAD_COLS,
          ROW_QUADS,
          D4,
          CHUNK,
          STAGE,
          LINE,
          PRODUCTS,
          STAGED,
          SUMS,
          ROW_LOADS: Math.ceil(rows * CHUNK / threads),
          COLUMN_LOADS: Math.ceil(columns * CHUNK / threads),
          STAGE_LOADS: Math.ceil(STAGE * D4 / threads),
        },
      },
    };
  }
  return undefined;
}

/** The number itself if it is odd, else the next one. */
function odd(n: number): number {
  return n + 1 - n % 2;
}

/** Subgroups of a workgroup on matrix units, and columns of a step. */
type MatrixShape = readonly [subgroups: number, columns: number];

/**
 * By part, the one to try first in front. More columns a step mean fewer barriers; more subgroups share what is loaded,
 * fewer leave room for several workgroups, which work while another waits.
 */
const MATRIX_SHAPES: Record<Part, readonly MatrixShape[]> = {
  forward: [[4, 32], [8, 32], [4, 16], [8, 16], [2, 16]],
  dq: [[4, 16], [8, 16], [4, 32], [2, 32], [2, 16]],
  dkv: [[4, 16], [8, 16], [4, 32], [2, 32], [2, 16]],
};

const MATRIX_RISKS: Record<Part, Risk> = {
  forward: "attention by matrices",
  dq: "attention gradients by matrices",
  dkv: "attention gradients by matrices",
};

/** What the backward kernel on matrix units calls the tensors: its rows are queries, or keys. */
const BACKWARD_NAMES = {
  dq: { q: "rows_0", d_o: "rows_1", k: "columns_0", v: "columns_1", first: "ends", dq: "result_0" },
  dkv: {
    k: "rows_0",
    v: "rows_1",
    q: "columns_0",
    d_o: "columns_1",
    last: "ends",
    dk: "result_0",
    dv: "result_1",
  },
} as const;

/** Most numbers of the results that a lane holds: with factors, scores and addresses they fill a GPU's registers. */
const MOST_HELD = 128;
/** Most matrices of the results on a processor, whose driver writes out the lanes of each product. */
const MOST_MATRICES = 16;

/** Matrix units, for 16 bits: they round to f16. Each subgroup has the rows of one matrix. */
function byMatrix({ info, limits }: Gpu, part: Part, headDim: number, format: Format): Variant[] {
  const unit = matrixUnit(info);
  if (format === "f32" || !unit) return [];
  const results = part === "dkv" ? 2 : 1;
  const held = info.isSoftware
    ? results * headDim / unit.N <= MOST_MATRICES
    : results * headDim * unit.M / unit.lanes <= MOST_HELD;
  if (!held || headDim % unit.N !== 0 || headDim % unit.K !== 0) return [];
  return MATRIX_SHAPES[part]
    .filter((shape) =>
      matrixShapeFits(unit, shape, headDim) &&
      shape[0] * unit.lanes <= limits.maxComputeInvocationsPerWorkgroup &&
      matrixBytes(unit, shape, part, headDim) <= limits.maxComputeWorkgroupStorageSize
    )
    .map((shape) => matrixVariant(unit, shape, part, headDim));
}

/** Whether matrices divide the scores of a step, those divide a row of results, and lanes have whole octets of scores. */
function matrixShapeFits({ M, N, K, lanes }: MatrixUnit, [, columns]: MatrixShape, headDim: number): boolean {
  return lanes % M === 0 && ROW_ALIGNMENT % M === 0 && columns % N === 0 && columns % K === 0 &&
    headDim % columns === 0 && columns % (8 * lanes / M) === 0;
}

/** Bytes in workgroup memory: of columns, by columns and turned; and of rows, scores and weights. */
function matrixBytes(
  { M }: MatrixUnit,
  [subgroups, columns]: MatrixShape,
  part: Part,
  headDim: number,
): number {
  const [tiles, turned, scores, weights] = {
    forward: [1, 1, 1, 1],
    dq: [2, 1, 2, 1],
    dkv: [2, 2, 2, 2],
  }[part] as [number, number, number, number];
  const ofColumns = tiles * columns * 2 * (headDim + 8) + turned * headDim * 2 * (columns + 8);
  const ofRow = scores * 4 * (columns + 4) + weights * 2 * (columns + 8) + (part === "forward" ? 8 : 0);
  return ofColumns + subgroups * M * ofRow + 16 * columns + 16;
}

function matrixVariant(
  unit: MatrixUnit,
  [subgroups, columns]: MatrixShape,
  part: Part,
  headDim: number,
): Variant {
  const { M, N, K, lanes } = unit;
  const rows = subgroups * M;
  const threads = subgroups * lanes;
  const { wgsl, libraries } = onUnit(unit, part === "forward" ? forwardMatrixWgsl : backwardMatrixWgsl);
  const loads = Math.ceil(columns * headDim / 8 / threads);
  const turnedLoads = Math.ceil(columns * headDim / 16 / threads);
  const ofPart = part === "forward"
    ? { KEY_LOADS: loads, VALUE_LOADS: turnedLoads }
    : { LOADS: loads, TURNED_LOADS: turnedLoads, OF_KEYS: part === "dkv", RESULTS: part === "dkv" ? 2 : 1 };
  return {
    name: `matrix ${rows}x${columns}`,
    takesHalves: true,
    ...(part === "forward" ? {} : { names: BACKWARD_NAMES[part] }),
    risk: MATRIX_RISKS[part],
    block: { rows, columns },
    kernel: {
      name: `attention ${part} by matrices of ${headDim}`,
      wgsl,
      libraries: [...libraries, ...CAP_SCORES],
      constants: {
        ...unitConstants(unit),
        SUBGROUPS: subgroups,
        COLUMNS: columns,
        D8: headDim / 8,
        LEFTS: headDim / K,
        SCORES: columns / N,
        ROUNDS: headDim / columns,
        OCTETS: columns / 8 / (lanes / M),
        ...ofPart,
      },
    },
  };
}

/** The largest divisor of n that is at most `most`; 0 if `most` is. */
function divisorUpTo(n: number, most: number): number {
  let divisor = most;
  while (divisor > 0 && n % divisor !== 0) divisor--;
  return divisor;
}
