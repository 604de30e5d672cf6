/** Products of rows with the matrices of their experts, in one dispatch for all experts. */
import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { operandA } from "../matmul/operands/a.ts";
import { denseOperand } from "../matmul/operands/dense.ts";
import { operandsOf, type ProductOptions } from "../matmul/matmul.ts";
import type { Tile } from "../matmul/run_tile.ts";
import type { RowRange } from "../shared/row_chunks.ts";
import type { Tensor } from "../tensor.ts";
import type { Layout, Operand, Weight } from "../weight.ts";
import type { Constants, Kernel } from "../wgsl.ts";
import keepAllWgsl from "../shared/keep_all.wgsl" with { type: "text" };
import paramsWgsl from "./grouped_params.wgsl" with { type: "text" };
import depthWgsl from "./grouped_depth.wgsl" with { type: "text" };
import rowsWgsl from "./grouped_rows.wgsl" with { type: "text" };
import { type Routing, sectionsOf } from "./routing.ts";
import { depthTile, tileOf } from "./tiles.ts";

/** No operand has a mask. */
const UNMASKED = { DROPS_A: false, DROPS_B: false };

/** Which rows an operand has: one for each token, or for each row of the table, those of an expert together. */
export type RowsOf = "tokens" | "pairs";

/** Options of a grouped product. */
export interface GroupedOptions extends ProductOptions {
  readonly routing: Routing;
  /** Rows of the left operand. */
  readonly rows: RowsOf;
}

/**
 * y = alpha x W[e]^T + beta y for the expert e of each row.
 *
 * @param x (T, K) or (T k, K), as `rows` says
 * @param weight (E N, K): a matrix (N, K) for each expert
 * @returns y (T k, N), rows as the table has them
 * @throws {GpuError} if shapes do not fit, or x or y lies in several bindings
 */
export function groupedMatmul(gpu: Gpu, x: Tensor, weight: Weight, options: GroupedOptions): Tensor {
  const { routing, rows } = options;
  const [N, K] = matrixOf(weight, routing);
  const y = options.into ?? gpu.empty([pairsOf(routing), N], options.format ?? x.format, "y");
  expect("groupedMatmul", x.width === K && y.width === N, x, weight, y);
  expect("groupedMatmul", x.rows === rowsOf(routing, rows) && y.rows === pairsOf(routing), x, weight, y);
  for (const part of operandsOf(weight)) {
    runGrouped(gpu, "nt", part, { a: x, c: y, outputs: N, columns: N, depth: K, ...options });
  }
  return y;
}

/**
 * dx = alpha dy W[e] + beta dx, the gradient of {@linkcode groupedMatmul} for its input.
 *
 * @param dy (T, N) or (T k, N), as `rows` says
 * @param weight (E N, K)
 * @returns dx (T k, K), rows as the table has them
 * @throws {GpuError} if shapes do not fit, or dy or dx lies in several bindings
 */
export function groupedBackwardInput(gpu: Gpu, dy: Tensor, weight: Weight, options: GroupedOptions): Tensor {
  const { routing, rows } = options;
  const [N, K] = matrixOf(weight, routing);
  const dx = options.into ?? gpu.empty([pairsOf(routing), K], options.format ?? dy.format, "dx");
  expect("groupedBackwardInput", dy.width === N && dx.width === K, dy, weight, dx);
  expect(
    "groupedBackwardInput",
    dy.rows === rowsOf(routing, rows) && dx.rows === pairsOf(routing),
    dy,
    weight,
    dx,
  );
  for (const part of operandsOf(weight)) {
    runGrouped(gpu, "nn", part, { a: dy, c: dx, outputs: N, columns: K, depth: N, ...options });
  }
  return dx;
}

/**
 * dW[e] = alpha dy^T x + beta dW[e] over the rows of each expert e, the gradient of {@linkcode groupedMatmul} for its
 * weight.
 *
 * @param dy (T, N) or (T k, N), as `rows` says
 * @param x (T, K) or (T k, K), as `xRows` says
 * @param options.into dW (E N, K) f32
 * @throws {GpuError} if shapes do not fit, or dy or x lies in several bindings
 */
export function groupedBackwardWeight(
  gpu: Gpu,
  dy: Tensor,
  x: Tensor,
  options: GroupedOptions & { readonly into: Tensor; readonly xRows: RowsOf },
): void {
  const { routing, rows, xRows, into: dWeight, alpha = 1, beta = 0 } = options;
  const [N, K] = matrixOf(dWeight, routing);
  const fits = dy.width === N && x.width === K && dy.rows === rowsOf(routing, rows) &&
    x.rows === rowsOf(routing, xRows);
  expect("groupedBackwardWeight", fits, dy, x, dWeight);
  const tile = depthTile(gpu);
  const operand = denseOperand(x);
  const work = pairsOf(routing) / routing.experts * N * K;
  for (const { start, rows: count } of dWeight.segments) {
    const c = dWeight.slice(start, start + count);
    for (const experts of runs(routing.experts, gpu.mostWork / work)) {
      gpu.run(
        kernelOf(tile, "tn", operand, {
          A_BY_TOKEN: rows === "tokens",
          B_BY_TOKEN: xRows === "tokens",
        }),
        { a: dy, c, table: routing.table, ...operand.tensors },
        {
          grid: [Math.ceil(N / tile.rows), Math.ceil(K / tile.columns), experts.end - experts.start],
          constants: { ADDS: beta !== 0 },
          formats: { A: dy.format, B: x.format, C: c.format },
          uniforms: {
            rows: N,
            cols: K / 4,
            depth: 0,
            a_stride: dy.width / 4,
            a_offset: 0,
            b_stride: x.width / 4,
            b_first: 0,
            band: 1,
            outputs: N,
            part_begin: start,
            part_end: start + count,
            ...tableAt(routing),
            first: experts.start,
            c_stride: K / 4,
            alpha,
            beta,
          },
          work: (experts.end - experts.start) * work,
        },
      );
    }
  }
}

interface GroupedProduct extends GroupedOptions {
  readonly a: Tensor;
  readonly c: Tensor;
  /** N of a matrix (N, K). */
  readonly outputs: number;
  readonly columns: number;
  readonly depth: number;
}

function runGrouped(
  gpu: Gpu,
  layout: "nt" | "nn",
  b: Operand,
  { a, c, outputs, columns, depth, routing, rows, alpha = 1, beta = 0 }: GroupedProduct,
): void {
  const tile = tileOf(gpu, routing.tileRows, layout);
  const constants = {
    TILE_ROWS: routing.tileRows,
    A_BY_TOKEN: rows === "tokens",
    B_TRANSPOSED: layout === "nn",
  };
  // Where the weight lies in several bindings, what a matrix's second part gives is added to the first's.
  const isPart = b.rows !== routing.experts * outputs;
  const work = routing.tileRows * columns * depth;
  for (const { start, end } of runs(routing.tiles, gpu.mostWork / work)) {
    gpu.run(kernelOf(tile, layout, b, constants), { a, c, table: routing.table, ...b.tensors }, {
      grid: [end - start, Math.ceil(columns / tile.columns)],
      constants: { ADDS: beta !== 0 || (layout === "nn" && isPart) },
      formats: { A: a.format, C: c.format, ...(b.format ? { B: b.format } : {}) },
      uniforms: {
        rows: routing.tileRows,
        cols: columns / 4,
        depth: depth / 4,
        a_stride: a.width / 4,
        a_offset: 0,
        b_stride: b.width / 4,
        b_first: b.firstQuad,
        band: 1,
        outputs,
        part_begin: b.start,
        part_end: b.start + b.rows,
        ...tableAt(routing),
        first: start,
        c_stride: c.width / 4,
        alpha,
        beta,
      },
      work: (end - start) * work,
    });
  }
}

function kernelOf(tile: Tile, layout: Layout, b: Operand, constants: Constants): Kernel {
  const { family, wgsl, libraries = [] } = tile;
  const pieces = b.form.pieces(family, layout, b.width);
  return {
    name: `grouped_matmul_${layout}_${b.name}_${tile.name}`,
    wgsl,
    libraries: [
      ...libraries,
      paramsWgsl,
      keepAllWgsl,
      layout === "tn" ? depthWgsl : rowsWgsl,
      operandA(layout),
      ...pieces.libraries,
      ...b.libraries,
    ],
    constants: { ...tile.constants, ...pieces.constants, ...b.constants, ...constants, ...UNMASKED },
  };
}

/** Cuts tiles, or experts, into runs of `most` each, of one at least: so many are short enough for a dispatch. */
function runs(count: number, most: number): RowRange[] {
  const step = Math.max(1, Math.min(count, Math.floor(most)));
  return Array.from(
    { length: Math.ceil(count / step) },
    (_, i) => ({ start: i * step, end: Math.min(count, (i + 1) * step) }),
  );
}

function tableAt(routing: Routing) {
  const { starts, tiles } = sectionsOf(routing);
  return { starts_at: starts, tiles_at: tiles };
}

function pairsOf({ tokens, perToken }: Routing): number {
  return tokens * perToken;
}

function rowsOf(routing: Routing, rows: RowsOf): number {
  return rows === "tokens" ? routing.tokens : pairsOf(routing);
}

function matrixOf(weight: Weight, { experts }: Routing): [number, number] {
  const [rows, width] = weight.shape as [number, number];
  return [rows / experts, width];
}

function expect(op: string, fits: boolean, left: Tensor, right: Weight, result: Tensor): void {
  if (fits) return;
  throw new GpuError(
    `Cannot apply ${op}: [${left.shape}] "${left.label}" and [${right.shape}] "${right.label}" do not make ` +
      `[${result.shape}]`,
  );
}
