/** Matrix-vector products of the same rows, as parts of one dispatch where they lie side by side. */
import type { Sharing } from "../gpu.ts";
import type { InnerFactors } from "../matmul/matmul.ts";
import { BLOCK } from "../nf4/format.ts";
import { bytesPerElement, OFFSET_BYTES, spanOf, Tensor } from "../tensor.ts";
import type { VectorOperand, Weight } from "../weight.ts";
import pairsWgsl from "./operand_pairs.wgsl" with { type: "text" };
import quadsWgsl from "./operand_quads.wgsl" with { type: "text" };

/** Parts of a dispatch at most: queries, keys and values. */
const MOST_PARTS = 3;

/** A second product that is added to one. */
export type VectorInner = Omit<InnerFactors, "mask">;

/** A product of the rows and a run of a weight's rows. */
export interface Part {
  readonly operand: VectorOperand;
  readonly y: Tensor;
  /** First column of `y` that it makes. */
  readonly first: number;
  readonly alpha: number;
  readonly beta: number;
  /** Its weight is the factor of the run's rows. */
  readonly inner: VectorInner | undefined;
}

/** Weights that a kernel reads as one. */
export interface JointOperand {
  readonly operands: readonly VectorOperand[];
  /** From the first weight to the last, by the names of the first one's. */
  readonly tensors: Readonly<Record<string, Tensor>>;
  /** Quads of outputs, of each weight a whole number. */
  readonly quads: number;
}

/** Operands by weight. They do not change, and a token asks for all of them. */
const OPERANDS = new WeakMap<Weight, Partial<Record<Sharing, readonly VectorOperand[]>>>();
/** What was joined, or could not be, by the first operand. */
const JOINTS = new WeakMap<
  VectorOperand,
  { readonly operands: readonly VectorOperand[]; readonly joint: JointOperand | undefined }[]
>();

/** Runs of a weight's rows, each in one binding. @throws {GpuError} if a dense weight was freed */
export function operandsOf(weight: Weight, sharing: Sharing): readonly VectorOperand[] {
  let known = OPERANDS.get(weight);
  if (!known) OPERANDS.set(weight, known = {});
  // Of runs that are kept, only the weight knows that it was freed.
  if (weight instanceof Tensor) weight.slice(0, weight.rows);
  return known[sharing] ??= weight instanceof Tensor ? denseOperands(weight) : weight.vectorOperands(sharing);
}

function denseOperands(weight: Tensor): VectorOperand[] {
  const quads = weight.format !== "f32" && weight.width % 8 === 0 ? 2 : 1;
  return weight.segments.map(({ start, rows }) => ({
    name: quads === 2 ? "pairs" : "quads",
    start,
    rows,
    tensors: { b: weight.slice(start, start + rows) },
    libraries: [quads === 2 ? pairsWgsl : quadsWgsl],
    format: weight.format,
    quads,
    isPlaced: true,
  }));
}

/** Parts that are one dispatch, and their weights. */
export interface Run {
  readonly parts: readonly Part[];
  readonly joint: JointOperand;
}

/** Groups parts, in their order, by dispatches. */
export function runsOf(parts: readonly Part[]): Run[] {
  const runs: Run[] = [];
  for (let first = 0; first < parts.length;) {
    const run = longestRun(parts.slice(first, first + MOST_PARTS));
    runs.push(run);
    first += run.parts.length;
  }
  return runs;
}

/** As many of the first parts as can be one dispatch. */
function longestRun(parts: readonly Part[]): Run {
  const joint = canJoin(parts) ? jointOf(parts.map(({ operand }) => operand)) : undefined;
  return joint ? { parts, joint } : longestRun(parts.slice(0, -1));
}

/** Whether all but the weights of parts is alike and side by side. */
function canJoin(parts: readonly Part[]): boolean {
  if (parts.length === 1) return true;
  const [one] = parts as [Part];
  const inners = parts.flatMap(({ inner }) => inner ?? []);
  const isAlike = ({ alpha, beta, y }: Part) =>
    alpha === one.alpha && beta === one.beta && y.dtype === one.y.dtype;
  return parts.every(isAlike) && inners.every(({ x }) => x === inners[0]!.x) &&
    isRow(parts.map(({ y }) => y)) && isRow(inners.map(({ weight }) => weight));
}

/** Weights as one; undefined where they are not of one form, side by side. @throws {GpuError} if one of them was freed */
function jointOf(operands: readonly VectorOperand[]): JointOperand | undefined {
  const [one] = operands as [VectorOperand];
  // What is kept of several is a tensor of its own, which does not know.
  if (operands.length > 1) operands.forEach(({ tensors }) => tensors.b!.bound);
  let known = JOINTS.get(one);
  if (!known) JOINTS.set(one, known = []);
  const isKnown = ({ operands: others }: { readonly operands: readonly VectorOperand[] }) =>
    others.length === operands.length && others.every((each, i) => each === operands[i]);
  const found = known.find(isKnown);
  if (found) return found.joint;
  const joint = join(operands);
  known.push({ operands, joint });
  return joint;
}

function join(operands: readonly VectorOperand[]): JointOperand | undefined {
  const [one] = operands as [VectorOperand];
  const last = operands.at(-1)!;
  const names = Object.keys(one.tensors);
  const isAlike = ({ isPlaced, name }: VectorOperand) => isPlaced && name === one.name;
  const fits = operands.length === 1 ||
    operands.every(isAlike) && names.every((name) => isRow(operands.map(({ tensors }) => tensors[name]!)));
  if (!fits) return undefined;
  return {
    operands,
    tensors: Object.fromEntries(names.map((name) => [name, spanOf(one.tensors[name]!, last.tensors[name]!)])),
    quads: operands.reduce((sum, { rows }) => sum + Math.ceil(rows / 4), 0),
  };
}

/** Whether tensors lie one behind the other in a buffer, none of which is larger than a binding. */
function isRow(tensors: readonly Tensor[]): boolean {
  if (tensors.length < 2) return true;
  const bounds = tensors.map(({ bound }) => bound);
  return bounds.every(({ buffer, offset }, i) => {
    const before = bounds[i - 1];
    return !before ||
      buffer === before.buffer && offset >= before.offset && (offset - before.offset) % OFFSET_BYTES === 0;
  });
}

/** Fields of a part in params.wgsl that its weight does not give, in the order of {@linkcode placesOf}. */
const PLACES = ["y_first", "y_stride", "inner_first", "inner_depth", "inner_b_first"] as const;

/** Places of parts in what they write and add, in quads: those of {@linkcode PLACES} of one part after the other. */
export function placesOf(parts: readonly Part[]): number[] {
  const { y: firstY } = parts[0]!;
  const firstInner = parts.find(({ inner }) => inner)?.inner;
  const places: number[] = [];
  for (const { y, first, inner } of parts) {
    places.push(
      (elementsBetween(firstY, y) + first) / 4,
      y.width / 4,
      (inner?.first ?? 0) / 4,
      (inner?.weight.width ?? 0) / 4,
      inner ? elementsBetween(firstInner!.weight, inner.weight) / 4 : 0,
    );
  }
  return places;
}

/** The fields of params.wgsl of all parts. @param depth quads along the depth */
export function partUniforms(
  { operands }: JointOperand,
  places: readonly number[],
  depth: number,
): Record<string, number> {
  const fields: Record<string, number> = {};
  const { tensors: of } = operands[0]!;
  let quads = 0;
  operands.forEach(({ rows, start, quads: perChunk, tensors: { b, absmax, nested } }, i) => {
    const before = blocksBetween(of.absmax, absmax);
    fields[`b_rows_${i}`] = rows;
    fields[`b_start_${i}`] = start * depth + before * BLOCK / 4;
    PLACES.forEach((name, place) => {
      // The first part adds from where its factor begins.
      if (i > 0 || name !== "inner_b_first") fields[`${name}_${i}`] = places[i * PLACES.length + place]!;
    });
    if (i > 0) {
      fields[`first_${i}`] = quads;
      fields[`b_first_${i}`] = elementsBetween(of.b!, b!) * depth / (b!.width * perChunk);
      fields[`b_before_${i}`] = before;
      fields[`nested_first_${i}`] = nested ? elementsBetween(of.nested!, nested) : 0;
    }
    quads += Math.ceil(rows / 4);
  });
  return fields;
}

/** Blocks between the scales of two weights in NF4, which are f32 or four to a word; 0 where there are none. */
function blocksBetween(from: Tensor | undefined, to: Tensor | undefined): number {
  return from && to ? elementsBetween(from, to) * (to.dtype === "u32" ? 4 : 1) : 0;
}

/** Elements from the first of one tensor to the first of another in the same buffer. */
function elementsBetween(from: Tensor, to: Tensor): number {
  if (from === to) return 0;
  return (to.bound.offset - from.bound.offset) / bytesPerElement(from.dtype);
}
