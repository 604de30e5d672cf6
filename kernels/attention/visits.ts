/** Cost of attention: the pairs of a query and a key that its kernels compute. */
import type { Gpu } from "../gpu.ts";
import type { Format } from "../wgsl.ts";
import type { AttentionShape } from "./attention.ts";
import type { AttentionMap } from "./map.ts";
import { ALL_PARTS, type Block, type Part, variantFor } from "./variants.ts";

/** One query and one key: no row is taken in vain. */
const SINGLE: Block = { rows: 1, columns: 1 };

/** Mask; a device is not needed. */
type Map = Pick<AttentionMap, "tables"> & Partial<Pick<AttentionMap, "before">>;

/**
 * Query-key pairs that a part computes over all query heads with the given blocks: those that see each other, and those
 * that a workgroup takes along to fill its blocks. Exact for tensors that lie in one binding; each further binding adds
 * a step of a block at most. A pair costs 2 `headDim` additions and multiplications for each product: 2 products in
 * forward, 3 in dq, 4 in dkv.
 * @param block of one query and one key unless given: then it is the number of pairs that see each other
 */
export function visitedPairs(
  { tables: { first, last }, before = 0 }: Map,
  { heads }: Pick<AttentionShape, "heads">,
  { part = "forward", block = SINGLE }: { readonly part?: Part; readonly block?: Block } = {},
): number {
  const rows = first.length / 2;
  let steps = 0;
  for (let set = 0; set < 2; set++) {
    const headsOfSet = set === 0 ? Math.ceil(heads / 2) : Math.floor(heads / 2);
    let stepsOfHead = 0;
    for (let start = part === "dkv" ? 0 : before; start < rows; start += block.rows) {
      const end = Math.min(start + block.rows, rows);
      const [from, to] = part === "dkv"
        ? [start, last[set * rows + end - 1]! + 1]
        : [first[set * rows + start]!, end];
      stepsOfHead += Math.ceil((to - from) / block.columns);
    }
    steps += headsOfSet * stepsOfHead;
  }
  return steps * block.rows * block.columns;
}

/** {@linkcode visitedPairs} of the kernels that serve this device in a format. */
export function visitedByKernels(
  gpu: Gpu,
  map: Map,
  shape: AttentionShape,
  format: Format = "f32",
): Record<Part, number> {
  const entries = ALL_PARTS.map((part) => {
    const { block } = variantFor(gpu, part, shape.headDim, format);
    return [part, visitedPairs(map, shape, { part, block })] as const;
  });
  return Object.fromEntries(entries) as Record<Part, number>;
}
