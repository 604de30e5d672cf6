import { GpuError } from "../errors.ts";
import type { Gpu, Sharing } from "../gpu.ts";
import { expectInner, holds, type InnerFactors, matmul, type ProductOptions } from "../matmul/matmul.ts";
import { sharingOf } from "../shared/sharing.ts";
import { Tensor } from "../tensor.ts";
import type { VectorOperand, Weight } from "../weight.ts";
import innerWgsl from "./inner.wgsl" with { type: "text" };
import innerNoneWgsl from "./inner_none.wgsl" with { type: "text" };
import { inputPieces, inputWidth, requireInput, type VectorInput } from "./input.ts";
import subgroupWgsl from "./matvec_subgroup.wgsl" with { type: "text" };
import workgroupWgsl from "./matvec_workgroup.wgsl" with { type: "text" };
import pairsWgsl from "./operand_pairs.wgsl" with { type: "text" };
import quadsWgsl from "./operand_quads.wgsl" with { type: "text" };
import paramsWgsl from "./params.wgsl" with { type: "text" };

/** Most rows of x that {@linkcode matvec} takes. */
export const MATVEC_ROWS = 8;

/** Quads of x that the workgroup kernel has room for, the threads it starts at most, and those that share outputs. */
const TILE = 1024;
const MOST_THREADS = 256;
const MOST_LANES = 64;
/** Workgroups below which a GPU would have idle cores: then each has fewer threads. */
const FEW_GROUPS = 256;

/** Options of {@linkcode matvec}. */
export interface VectorOptions extends Omit<ProductOptions, "addend"> {
  /** What is multiplied; x itself unless given. */
  readonly input?: VectorInput | undefined;
  /** A second product, added to the first and scaled with it. */
  readonly inner?: Omit<InnerFactors, "mask"> | undefined;
}

/**
 * y = alpha (x W^T + inner) + beta y for a few rows, as when a model writes one token at a time: the time is that of
 * reading the weights, and each is read once. What `input` makes of x takes its place, and is not rounded.
 *
 * @param x (M, K) with M at most {@linkcode MATVEC_ROWS}
 * @param weight (N, K)
 * @returns y (M, N rounded up to a multiple of 4; columns past N hold a copy of column N - 1)
 * @throws {GpuError} if the shapes do not fit, M is too large, or K is not a multiple of 4
 */
export function matvec(gpu: Gpu, x: Tensor, weight: Weight, options: VectorOptions = {}): Tensor {
  const [outputs, depth] = weight.shape as [number, number];
  const columns = Math.ceil(outputs / 4) * 4;
  const y = options.into ?? gpu.empty([x.rows, columns], options.format ?? x.format, "y");
  const { input, inner, first } = options;
  if (
    x.rows > MATVEC_ROWS || inputWidth(x, input) !== depth || depth % 4 !== 0 || y.rows !== x.rows ||
    !holds(y, columns, first)
  ) {
    throw new GpuError(
      `Cannot apply matvec: [${x.shape}] "${x.label}" and [${weight.shape}] "${weight.label}" do not make ` +
        `[${y.shape}], with ${MATVEC_ROWS} rows at most and every row a multiple of 4 long`,
    );
  }
  if (input) requireInput(x, input);
  expectInner("matvec", y, inner, inner?.weight.rows === outputs && inner.weight.width);
  const sharing = input ? "workgroup" : sharingOf(gpu, "matvec");
  for (const part of operandsOf(weight, sharing)) run(gpu, x, y, part, sharing, options);
  return y;
}

/** y = alpha x W^T + beta y by {@linkcode matvec} where x has few rows, by {@linkcode matmul} where it has more. */
export function product(gpu: Gpu, x: Tensor, weight: Weight, options: VectorOptions = {}): Tensor {
  return x.rows <= MATVEC_ROWS || options.input
    ? matvec(gpu, x, weight, options)
    : matmul(gpu, x, weight, options);
}

function run(
  gpu: Gpu,
  x: Tensor,
  y: Tensor,
  part: VectorOperand,
  sharing: Sharing,
  { alpha = 1, beta = 0, first = 0, input, inner }: VectorOptions,
): void {
  const depth = inputWidth(x, input) / 4;
  // A power of two, so that a step of a longer batch compiles few variants.
  const M = 2 ** Math.ceil(Math.log2(x.rows));
  const { constants, outputs } = sharing === "subgroup"
    ? { constants: { M, CHUNKS: 8 / part.quads, PER_CHUNK: part.quads }, outputs: 32 }
    : workgroupShape(part, M, depth);
  const made = inputPieces(x, input);
  const added = innerPieces(part, inner);
  gpu.run(
    {
      name: `matvec_${part.name}_${made.name}${added.name}${sharing}`,
      wgsl: sharing === "subgroup" ? subgroupWgsl : workgroupWgsl,
      libraries: [paramsWgsl, ...made.libraries, added.library, ...part.libraries],
    },
    { x, y, ...part.tensors, ...made.tensors, ...added.tensors },
    {
      grid: [Math.ceil(part.rows / outputs)],
      constants,
      formats: { X: x.format, Y: y.format, ...(part.format ? { B: part.format } : {}) },
      uniforms: {
        rows: x.rows,
        depth,
        x_stride: x.width / 4,
        b_rows: part.rows,
        b_first: part.start * depth,
        y_stride: y.width / 4,
        y_offset: (first + part.start) / 4,
        alpha,
        beta,
        ...made.uniforms,
        ...added.uniforms,
      },
    },
  );
}

/** Pieces by which a kernel adds an inner product, and what they read. */
function innerPieces({ start, rows }: VectorOperand, inner: VectorOptions["inner"]) {
  if (!inner) {
    const uniforms = { inner_depth: 0, inner_stride: 0, inner_offset: 0 };
    return { name: "", library: innerNoneWgsl, tensors: {}, uniforms };
  }
  const { x, weight, first = 0 } = inner;
  return {
    name: "inner_",
    library: innerWgsl,
    tensors: { inner_x: x, inner_b: weight.slice(start, start + rows) },
    uniforms: { inner_depth: weight.width / 4, inner_stride: x.width / 4, inner_offset: first / 4 },
  };
}

/** Units of two chunks where they share a scale and sums leave registers; lanes and turns by the room in a tile. */
function workgroupShape({ rows, quads, scaleQuads = Infinity }: VectorOperand, M: number, depth: number) {
  const CHUNKS = M <= 2 && 2 * quads <= scaleQuads ? 2 : 1;
  const unit = quads * CHUNKS;
  const room = TILE / M / unit;
  const LANES = Math.min(
    MOST_LANES,
    2 ** Math.floor(Math.log2(room)),
    2 ** Math.ceil(Math.log2(Math.ceil(depth / unit))),
  );
  const TURNS = Math.min(Math.floor(room / LANES), Math.ceil(depth / unit / LANES));
  let THREADS = Math.min(MOST_THREADS, TILE / M);
  const groups = () => rows / 4 / (THREADS / LANES);
  while (THREADS > 64 && groups() < FEW_GROUPS) THREADS /= 2;
  const tile = Math.max(M * unit * (TURNS * LANES + 1), M * THREADS);
  return {
    constants: { M, LANES, THREADS, CHUNKS, TURNS, PER_STEP: Math.min(quads, 2), TILE: tile },
    outputs: 4 * THREADS / LANES,
  };
}

function operandsOf(weight: Weight, sharing: Sharing): readonly VectorOperand[] {
  if (!(weight instanceof Tensor)) return weight.vectorOperands(sharing);
  const quads = weight.format !== "f32" && weight.width % 8 === 0 ? 2 : 1;
  return weight.segments.map(({ start, rows }) => ({
    name: quads === 2 ? "pairs" : "quads",
    start,
    rows,
    tensors: { b: weight.slice(start, start + rows) },
    libraries: [quads === 2 ? pairsWgsl : quadsWgsl],
    format: weight.format,
    quads,
  }));
}
