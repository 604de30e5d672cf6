import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { requireVector, wrappedGrid } from "../shared/grid.ts";
import { REDUCE_64 } from "../shared/reduce.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import countWgsl from "./count.wgsl" with { type: "text" };
import exponentialsWgsl from "./exponentials.wgsl" with { type: "text" };
import routeWgsl from "./route.wgsl" with { type: "text" };
import routeBackwardWgsl from "./route_backward.wgsl" with { type: "text" };
import sortWgsl from "./sort.wgsl" with { type: "text" };
import tableWgsl from "./table.wgsl" with { type: "text" };
import { tileRowsFor } from "./tiles.ts";

const SHARED = { ...REDUCE_64, libraries: [...REDUCE_64.libraries, tableWgsl, exponentialsWgsl] };
const ROUTE = { name: "route", wgsl: routeWgsl, ...SHARED };
const ROUTE_BACKWARD = { name: "route_backward", wgsl: routeBackwardWgsl, ...SHARED };
const COUNT = { name: "count_by_expert", wgsl: countWgsl, libraries: [tableWgsl] };
const SORT = { name: "sort_by_expert", wgsl: sortWgsl, libraries: [tableWgsl] };

/** What one workgroup of the router can hold. */
export const MOST_EXPERTS = { all: 2048, perToken: 64 } as const;

/** How tokens are given to experts. */
export interface RouterOptions {
  /** E */
  readonly experts: number;
  /** k: experts of each token. */
  readonly perToken: number;
  /** Whether the weights of a token's experts are divided by their sum. */
  readonly isNormalised: boolean;
}

/** Sizes of a routing, known to the host before it is made. */
export interface RoutingShape {
  /** T */
  readonly tokens: number;
  /** E */
  readonly experts: number;
  /** k */
  readonly perToken: number;
  /** Rows of one expert that a workgroup works on. */
  readonly tileRows: number;
  /** Most tiles that there can be, however the tokens are spread. */
  readonly tiles: number;
}

/** Which experts the tokens of a batch have, and the order in which the rows of each stand together. */
export interface Routing extends RoutingShape {
  /** u32, laid out as table.wgsl says. */
  readonly table: Tensor;
}

/** Gives the sizes of a routing of T tokens. */
export function routingShape(
  gpu: Gpu,
  tokens: number,
  { experts, perToken }: Pick<RouterOptions, "experts" | "perToken">,
): RoutingShape {
  const pairs = tokens * perToken;
  const busy = Math.min(experts, pairs);
  const tileRows = tileRowsFor(gpu, pairs / busy);
  const tiles = Math.floor((pairs + busy * (tileRows - 1)) / tileRows);
  return { tokens, experts, perToken, tileRows, tiles };
}

/** Places of the table's sections that host code hands to kernels. */
export function sectionsOf({ tokens, perToken, experts }: RoutingShape) {
  const starts = 4 * tokens * perToken + experts;
  return { pairs: tokens * perToken, starts, tiles: starts + experts + 1 };
}

/**
 * Chooses the experts of each token by its logits, and sorts the tokens by expert. Nothing is read back.
 *
 * @param logits (T, E rounded up to a multiple of 4) f32
 * @returns `weights` (T k) f32 by pair, and the table; the caller frees both. Of equal logits the lowest experts are taken
 * @throws {GpuError} if there are more experts than the kernels can hold, or fewer than each token is to have
 */
export function route(
  gpu: Gpu,
  logits: Tensor,
  options: RouterOptions,
): { weights: Tensor; routing: Routing } {
  const { experts, perToken, isNormalised } = options;
  requireLogits("route", logits, options);
  const tokens = logits.rows;
  const pairs = tokens * perToken;
  const shape = routingShape(gpu, tokens, options);
  const weights = gpu.empty([pairs], "f32", "weights of experts");
  const size = sectionsOf(shape).tiles + 3 * shape.tiles;
  const table = gpu.empty([size], "u32", "routing");
  for (const { start, end } of rowRanges([logits])) {
    gpu.run(ROUTE, { logits: logits.slice(start, end), weights, table }, {
      grid: wrappedGrid(end - start),
      constants: { NORMALISED: isNormalised },
      uniforms: { rows: end - start, width: logits.width, experts, k: perToken, first: start, pairs },
    });
  }
  gpu.run(COUNT, { table }, { grid: [experts], uniforms: { pairs } });
  gpu.run(SORT, { table }, {
    grid: [experts],
    constants: { TILE_ROWS: shape.tileRows },
    uniforms: { pairs, k: perToken, experts, tiles: shape.tiles },
  });
  return { weights, routing: { ...shape, table } };
}

/**
 * Overwrites the logits by their gradient.
 *
 * @param logits (T, E rounded up to a multiple of 4) f32, as they were given to {@linkcode route}
 * @param weights (T k) f32, as it gave them
 * @param dWeights (T k) f32
 * @throws {GpuError} if shapes differ
 */
export function routeBackwardInPlace(
  gpu: Gpu,
  logits: Tensor,
  weights: Tensor,
  dWeights: Tensor,
  { table, tokens }: Routing,
  options: RouterOptions,
): void {
  requireLogits("routeBackwardInPlace", logits, options);
  const { experts, perToken, isNormalised } = options;
  const pairs = tokens * perToken;
  requireVector("routeBackwardInPlace", weights, pairs, "f32");
  requireVector("routeBackwardInPlace", dWeights, pairs, "f32");
  for (const { start, end } of rowRanges([logits])) {
    const part = { logits: logits.slice(start, end), weights, d_weights: dWeights, table };
    gpu.run(ROUTE_BACKWARD, part, {
      grid: wrappedGrid(end - start),
      constants: { NORMALISED: isNormalised },
      uniforms: { rows: end - start, width: logits.width, experts, k: perToken, first: start, pairs },
    });
  }
}

function requireLogits(op: string, logits: Tensor, { experts, perToken }: RouterOptions): void {
  const fits = logits.dtype === "f32" && logits.width === Math.ceil(experts / 4) * 4 &&
    experts <= MOST_EXPERTS.all && perToken >= 1 && perToken <= Math.min(experts, MOST_EXPERTS.perToken);
  if (fits) return;
  throw new GpuError(
    `Cannot apply ${op}: ${perToken} of ${experts} experts by logits [${logits.shape}] ${logits.dtype}; at most ` +
      `${MOST_EXPERTS.perToken} of ${MOST_EXPERTS.all} can be taken`,
  );
}
