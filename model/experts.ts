/** A mixture of experts: each token goes through the few MLPs that a router chooses for it. */
import { addInto } from "../kernels/elementwise/elementwise.ts";
import {
  groupedBackwardInput,
  groupedBackwardWeight,
  groupedMatmul,
  type RowsOf,
} from "../kernels/experts/grouped.ts";
import { combine, routedSwiglu, routedSwigluBackwardInPlace } from "../kernels/experts/routed.ts";
import {
  route,
  routeBackwardInPlace,
  type RouterOptions,
  type Routing,
  routingShape,
  sectionsOf,
} from "../kernels/experts/routing.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { product } from "../kernels/matvec/matvec.ts";
import { rowsWithin } from "../kernels/shared/row_chunks.ts";
import { rowRanges, type Tensor } from "../kernels/tensor.ts";
import type { Weight } from "../kernels/weight.ts";
import { free } from "./chunks.ts";
import {
  dropInput,
  type DropoutKey,
  type Linear,
  linearBackward,
  type Lora,
  type PairRows,
} from "./linear.ts";
import { withRows } from "./linear_input.ts";
import type { Mlp } from "./mlp.ts";

/** The linears that the experts of a layer have for one purpose, in one tensor. */
export interface ExpertLinears {
  /** Name of them all, such as `model.layers.0.mlp.experts.up_proj`: of no module in the checkpoint. */
  readonly name: string;
  /** Module of each expert in the checkpoint, such as `model.layers.0.mlp.experts.3.up_proj`. */
  readonly modules: readonly string[];
  /** (E N, K): a matrix (N, K) for each expert. */
  readonly weight: Weight;
  /** (E N, K); undefined where the weights are frozen. */
  readonly weightGrad: Tensor | undefined;
  /** Factors A (E R, K) and B (E N, R). */
  lora: Lora | undefined;
}

/** What a mixture of experts is made of. */
export interface ExpertsMlpParts {
  /** (E, C) */
  readonly router: Linear;
  readonly gate: ExpertLinears;
  readonly up: ExpertLinears;
  readonly down: ExpertLinears;
  readonly options: RouterOptions;
}

/** Some rows and their tensors: of what the first half gives there are five for each run of rows. */
interface Part {
  readonly start: number;
  readonly end: number;
  /** (T, E rounded up to a multiple of 4) f32, later its gradient. */
  readonly logits: Tensor;
  /** (T k) f32 by pair. */
  readonly weights: Tensor;
  readonly routing: Routing;
  /** (T k, F), later their gradients. */
  readonly gate: Tensor;
  readonly up: Tensor;
}

/** Tensors of a part. */
const PART_TENSORS = 5;

/**
 * mlp(y) = sum over the k experts e of a token of w[e] down[e](silu(gate[e](y)) * up[e](y)), the weights w of the router's
 * softmax. Jiang et al. 2024, arXiv:2401.04088. Which tokens an expert has is known to the device alone; of the T k rows
 * those of an expert stand together. The router's product and softmax are in f32.
 *
 * Works on runs of rows of which all tensors lie in one binding each.
 */
export function expertsMlp({ router, gate, up, down, options }: ExpertsMlpParts): Mlp {
  const { experts, perToken } = options;
  const [F, C] = [gate.weight.shape[0]! / experts, gate.weight.shape[1]!];

  /** Runs of rows. */
  function runsOf(gpu: Gpu, rows: Tensor) {
    return rowRanges([rows], rowsWithin(gpu.maxBindingBytes, 4 * perToken * Math.max(C, F)));
  }

  /** Reads back what {@linkcode tensorsOf} put in a row. */
  function partsOf(gpu: Gpu, tensors: readonly Tensor[]): Part[] {
    let start = 0;
    return Array.from({ length: tensors.length / PART_TENSORS }, (_, i): Part => {
      const [logits, weights, table, gate, up] = tensors.slice(PART_TENSORS * i, PART_TENSORS * (i + 1)) as [
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
      ];
      const routing = { ...routingShape(gpu, logits.rows, options), table };
      const end = start + logits.rows;
      const part = { start, end, logits, weights, routing, gate, up };
      start = end;
      return part;
    });
  }

  return {
    up: (gpu, input, key, firstRow) =>
      withRows(gpu, input, (y) =>
        runsOf(gpu, y).flatMap(({ start, end }) => {
          const rows = y.slice(start, end);
          const logits = product(gpu, rows, router.weight, { format: "f32" });
          const { weights, routing } = route(gpu, logits, options);
          const at = { routing, rows: "tokens", key, firstRow: firstRow + start } as const;
          const inputs = [gate, up].map((each) => expertsLinear(gpu, rows, each, at));
          return [logits, weights, routing.table, ...inputs];
        })),

    down(gpu, inputs, key, { firstRow = 0, into, addTo, addend }) {
      const parts = partsOf(gpu, inputs);
      const out = addTo ?? into ??
        gpu.empty([parts.at(-1)!.end, C], parts[0]!.gate.dtype, "output of experts");
      for (const { start, end, weights, routing, gate, up } of parts) {
        const hidden = routedSwiglu(gpu, { gate, up }, weights, routing);
        const at = { routing, rows: "pairs", key, firstRow: firstRow + start } as const;
        const y = expertsLinear(gpu, hidden, down, at);
        hidden.free();
        combine(gpu, y, out.slice(start, end), routing, { adds: addTo !== undefined });
        y.free();
      }
      if (addend) addInto(gpu, out, addend);
      return out;
    },

    downBackward(gpu, dOut, inputs, key, firstRow) {
      for (const { start, end, logits, weights, routing, gate, up } of partsOf(gpu, inputs)) {
        const hidden = routedSwiglu(gpu, { gate, up }, weights, routing);
        const gradient = inOneBinding(gpu, dOut.slice(start, end));
        const dHidden = expertsLinearBackward(gpu, gradient.tensor, hidden, down, {
          routing,
          rows: "tokens",
          xRows: "pairs",
          key,
          firstRow: firstRow + start,
        });
        gradient.free();
        hidden.free();
        const dWeights = routedSwigluBackwardInPlace(gpu, dHidden, { gate, up }, weights, routing);
        dHidden.free();
        routeBackwardInPlace(gpu, logits, weights, dWeights, routing, options);
        dWeights.free();
      }
      return [...inputs];
    },

    upBackward(gpu, gradients, y, key, firstRow) {
      const dy = gpu.empty(y.shape, y.dtype, "gradient of experts");
      for (const part of partsOf(gpu, gradients)) {
        const { start, end, logits: dLogits, weights, routing, gate: dGate, up: dUp } = part;
        const rows = y.slice(start, end);
        const dRows = dy.slice(start, end);
        const at = { routing, rows: "pairs", xRows: "tokens", key, firstRow: firstRow + start } as const;
        // Of inputs that LoRA dropped, the gradient has the mask of their token, so it is added token by token.
        const late: Tensor[] = [];
        const dx = expertsLinearBackward(gpu, dGate, rows, gate, at, { late });
        dGate.free();
        expertsLinearBackward(gpu, dUp, rows, up, at, { late, addTo: dx });
        dUp.free();
        combine(gpu, dx, dRows, routing);
        dx.free();
        for (const each of late) {
          addInto(gpu, dRows, each);
          each.free();
        }
        linearBackward(gpu, dLogits, rows, router, undefined, { addTo: dRows });
        free(dLogits, weights, routing.table);
      }
      return dy;
    },
  };
}

/** Rows that experts are to read in any order: themselves, or a copy where they lie in several bindings. */
function inOneBinding(gpu: Gpu, rows: Tensor): { readonly tensor: Tensor; free(): void } {
  if (rows.segments.length === 1) return { tensor: rows, free() {} };
  const copy = gpu.empty(rows.shape, rows.dtype, rows.label);
  gpu.copy(rows, copy);
  return { tensor: copy, free: () => copy.free() };
}

/** The rows of a product, and what LoRA's dropout draws from. */
interface RoutedRows {
  readonly routing: Routing;
  /** Rows of the left operand. */
  readonly rows: RowsOf;
  readonly key: DropoutKey | undefined;
  /** Number in the batch of the first token. */
  readonly firstRow: number;
}

/** @param x (T, K) or (T k, K)  @returns y (T k, N) */
function expertsLinear(gpu: Gpu, x: Tensor, layer: ExpertLinears, at: RoutedRows): Tensor {
  const { routing, rows, key, firstRow } = at;
  const y = groupedMatmul(gpu, x, layer.weight, { routing, rows });
  if (layer.lora) {
    const { A, B, scaling } = layer.lora;
    const dropped = dropInput(gpu, x, layer.lora, key, firstRow, pairsOf(routing, rows));
    const h = groupedMatmul(gpu, dropped, A, { routing, rows, format: "f32" });
    groupedMatmul(gpu, h, B, { routing, rows: "pairs", into: y, alpha: scaling, beta: 1 });
    h.free();
    if (dropped !== x) dropped.free();
  }
  return y;
}

/** Rows of the table have dropout's mask by their pair, so that it does not depend on which rows are sorted together. */
function pairsOf(routing: Routing, rows: RowsOf): PairRows | undefined {
  if (rows === "tokens") return undefined;
  const { table, perToken } = routing;
  return { numbers: { table, at: sectionsOf(routing).pairs }, perToken };
}

/**
 * Adds the linears' own gradients to what they hold.
 *
 * @param dy (T, N) or (T k, N), as `rows` says
 * @param x (T, K) or (T k, K), as `xRows` says: the input of the forward pass
 * @param options.addTo (T k, K): the gradient is added to it; a new tensor unless given
 * @param options.late where x has a row for each token and LoRA dropped some: gets gradients (T, K) that are to be added too
 * @returns dx (T k, K)
 */
function expertsLinearBackward(
  gpu: Gpu,
  dy: Tensor,
  x: Tensor,
  { weight, weightGrad, lora }: ExpertLinears,
  { routing, rows, xRows, key, firstRow }: RoutedRows & { readonly xRows: RowsOf },
  { addTo, late = [] }: { readonly addTo?: Tensor; readonly late?: Tensor[] } = {},
): Tensor {
  if (weightGrad) groupedBackwardWeight(gpu, dy, x, { routing, rows, xRows, into: weightGrad, beta: 1 });
  const dx = groupedBackwardInput(gpu, dy, weight, {
    routing,
    rows,
    format: x.format,
    ...(addTo ? { into: addTo, beta: 1 } : {}),
  });
  if (!lora) return dx;
  const { A, B, gradA, gradB, scaling } = lora;
  const pairs = pairsOf(routing, xRows);
  const dropped = dropInput(gpu, x, lora, key, firstRow, pairs);
  if (gradB) {
    const h = groupedMatmul(gpu, dropped, A, { routing, rows: xRows, format: "f32" });
    groupedBackwardWeight(gpu, dy, h, {
      routing,
      rows,
      xRows: "pairs",
      into: gradB,
      alpha: scaling,
      beta: 1,
    });
    h.free();
  }
  const g = groupedBackwardInput(gpu, dy, B, { routing, rows, alpha: scaling, format: "f32" });
  if (gradA) groupedBackwardWeight(gpu, g, dropped, { routing, rows: "pairs", xRows, into: gradA, beta: 1 });
  if (dropped === x) {
    groupedBackwardInput(gpu, g, A, { routing, rows: "pairs", into: dx, beta: 1 });
  } else {
    dropped.free();
    const dDropped = groupedBackwardInput(gpu, g, A, { routing, rows: "pairs", format: dx.format });
    if (xRows === "pairs") {
      const dInput = dropInput(gpu, dDropped, lora, key, firstRow, pairs);
      addInto(gpu, dx, dInput);
      dInput.free();
    } else {
      const sum = gpu.empty([routing.tokens, dDropped.width], dDropped.dtype, "gradient of experts");
      combine(gpu, dDropped, sum, routing);
      late.push(dropInput(gpu, sum, lora, key, firstRow));
      sum.free();
    }
    dDropped.free();
  }
  g.free();
  return dx;
}
