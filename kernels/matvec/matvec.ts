import { GpuError } from "../errors.ts";
import type { Gpu, Launch, Sharing } from "../gpu.ts";
import { expectInner, holds, matmul, type ProductOptions } from "../matmul/matmul.ts";
import { sharingOf } from "../shared/sharing.ts";
import { spanOf, type Tensor } from "../tensor.ts";
import type { VectorOperand, Weight } from "../weight.ts";
import type { Kernel } from "../wgsl.ts";
import innerWgsl from "./inner.wgsl" with { type: "text" };
import innerNoneWgsl from "./inner_none.wgsl" with { type: "text" };
import {
  type InputPieces,
  inputPieces,
  inputWidth,
  makesInput,
  requireInput,
  type VectorInput,
} from "./input.ts";
import subgroupWgsl from "./matvec_subgroup.wgsl" with { type: "text" };
import workgroupWgsl from "./matvec_workgroup.wgsl" with { type: "text" };
import paramsWgsl from "./params.wgsl" with { type: "text" };
import {
  type JointOperand,
  operandsOf,
  type Part,
  partUniforms,
  placesOf,
  type Run,
  runsOf,
  type VectorInner,
} from "./parts.ts";

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
  readonly inner?: VectorInner | undefined;
}

/** One of several products that {@linkcode matvecs} makes. */
export interface VectorCall extends Omit<VectorOptions, "input"> {
  /** (N, K) */
  readonly weight: Weight;
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
export function matvec(
  gpu: Gpu,
  x: Tensor,
  weight: Weight,
  { input, ...options }: VectorOptions = {},
): Tensor {
  return matvecs(gpu, x, [{ weight, ...options }], input)[0]!;
}

/**
 * Several of {@linkcode matvec} of the same rows: up to three in one dispatch where weights of one form,
 * results and the weights of inner products each lie side by side in memory, and factors are the same.
 */
export function matvecs(
  gpu: Gpu,
  x: Tensor,
  calls: readonly VectorCall[],
  input?: VectorInput,
): Tensor[] {
  const ys = resultsOf(gpu, x, calls);
  calls.forEach((call, i) => requireFit(x, call, ys[i]!, input));
  if (input) requireInput(x, input);
  const sharing = input ? "workgroup" : sharingOf(gpu, "matvec");
  const parts = calls.flatMap(({ weight, alpha = 1, beta = 0, first = 0, inner }, i) =>
    operandsOf(weight, sharing).map((operand): Part => {
      const { start, rows } = operand;
      const ofRows = rows === weight.shape[0]
        ? inner
        : inner && { ...inner, weight: inner.weight.slice(start, start + rows) };
      return { operand, y: ys[i]!, first: first + start, alpha, beta, inner: ofRows };
    })
  );
  for (const run of runsOf(parts)) runParts(gpu, x, run, sharing, input);
  return ys;
}

/** Whether {@linkcode matvec} is to make what it multiplies by a weight: not where a kernel cannot bind as much. */
export function makesInputOf(
  gpu: Gpu,
  { weight, hasInner }: { readonly weight: Weight; readonly hasInner: boolean },
): boolean {
  if (!makesInput(gpu)) return false;
  // x, y, what the input is made with, and the factors of the inner product.
  const others = 3 + (hasInner ? 2 : 0);
  const most = gpu.limits.maxStorageBuffersPerShaderStage;
  return operandsOf(weight, "workgroup").every(({ tensors }) => others + Object.keys(tensors).length <= most);
}

/** y = alpha x W^T + beta y by {@linkcode matvec} where x has few rows, by {@linkcode matmul} where it has more. */
export function product(gpu: Gpu, x: Tensor, weight: Weight, options: VectorOptions = {}): Tensor {
  return x.rows <= MATVEC_ROWS || options.input
    ? matvec(gpu, x, weight, options)
    : matmul(gpu, x, weight, options);
}

/** Tensors for results: those given, and new ones side by side. */
function resultsOf(gpu: Gpu, x: Tensor, calls: readonly VectorCall[]): Tensor[] {
  const ys = calls.map(({ into }) => into);
  if (ys.every((y) => y)) return ys as Tensor[];
  for (const format of new Set(calls.filter(({ into }) => !into).map(({ format }) => format ?? x.format))) {
    const wanted = [...calls.keys()].filter((i) =>
      !calls[i]!.into && (calls[i]!.format ?? x.format) === format
    );
    const made = gpu.emptyTogether(
      wanted.map((i) => ({ shape: [x.rows, columnsOf(calls[i]!.weight)], label: "y" })),
      format,
    );
    wanted.forEach((i, number) => ys[i] = made[number]);
  }
  return ys as Tensor[];
}

function columnsOf({ shape }: Weight): number {
  return Math.ceil(shape[0]! / 4) * 4;
}

/** @throws {GpuError} if x, weight and inner product do not make y */
function requireFit(x: Tensor, { weight, inner, first }: VectorCall, y: Tensor, input?: VectorInput): void {
  const [outputs, depth] = weight.shape as [number, number];
  if (
    x.rows > MATVEC_ROWS || inputWidth(x, input) !== depth || depth % 4 !== 0 || y.rows !== x.rows ||
    !holds(y, columnsOf(weight), first)
  ) {
    throw new GpuError(
      `Cannot apply matvec: [${x.shape}] "${x.label}" and [${weight.shape}] "${weight.label}" do not make ` +
        `[${y.shape}], with ${MATVEC_ROWS} rows at most and every row a multiple of 4 long`,
    );
  }
  expectInner("matvec", y, inner, inner?.weight.rows === outputs && inner.weight.width);
}

/** A kernel and its launch, and the numbers that they were made of. */
interface Launched {
  readonly facts: readonly unknown[];
  readonly kernel: Kernel;
  readonly launch: Launch;
}

/** What weights were last multiplied by: a token is launched as the one before, and making that anew takes as long as all else. */
const LAUNCHED = new WeakMap<JointOperand, Launched>();

/** Records products as one dispatch. */
function runParts(
  gpu: Gpu,
  x: Tensor,
  { parts, joint }: Run,
  sharing: Sharing,
  input: VectorInput | undefined,
): void {
  const made = inputPieces(x, input);
  const { y, alpha, beta } = parts[0]!;
  const inners = parts.flatMap(({ inner }) => inner ?? []);
  const [firstInner, lastInner] = [inners[0], inners.at(-1)];
  const places = placesOf(parts);
  const { eps, offset } = made.uniforms;
  const inner_stride = (firstInner?.x.width ?? 0) / 4;
  const format = `${sharing} ${made.name} ${x.dtype} ${y.dtype}`;
  const facts = [format, eps, offset, x.rows, x.width, alpha, beta, inner_stride, ...places];
  let launched = LAUNCHED.get(joint);
  if (
    !launched || launched.facts.length !== facts.length ||
    facts.some((fact, i) => fact !== launched!.facts[i])
  ) {
    const uniforms = { alpha, beta, inner_stride };
    launched = {
      facts,
      ...launchOf(x, y, joint, { sharing, input, made, hasInner: inners.length > 0, places, uniforms }),
    };
    LAUNCHED.set(joint, launched);
  }
  const tensors = {
    x,
    y: spanOf(y, parts.at(-1)!.y),
    ...joint.tensors,
    ...made.tensors,
    ...(firstInner && { inner_x: firstInner.x, inner_b: spanOf(firstInner.weight, lastInner!.weight) }),
  };
  gpu.run(launched.kernel, tensors, launched.launch);
}

/** The kernel for products of x, and its launch. */
function launchOf(
  x: Tensor,
  y: Tensor,
  joint: JointOperand,
  { sharing, input, made, hasInner, places, uniforms }: {
    readonly sharing: Sharing;
    readonly input: VectorInput | undefined;
    readonly made: InputPieces;
    readonly hasInner: boolean;
    readonly places: readonly number[];
    readonly uniforms: Readonly<Record<"alpha" | "beta" | "inner_stride", number>>;
  },
): Omit<Launched, "facts"> {
  const { operands, quads } = joint;
  const [operand] = operands as [VectorOperand];
  const depth = inputWidth(x, input) / 4;
  // A power of two, so that a step of a longer batch compiles few variants.
  const M = 2 ** Math.ceil(Math.log2(x.rows));
  const { constants, outputs } = sharing === "subgroup"
    ? { constants: { M, CHUNKS: 8 / operand.quads, PER_CHUNK: operand.quads }, outputs: 32 }
    : workgroupShape(operand, 4 * quads, M, depth);
  const joined = operands.length > 1 ? `${operands.length}_parts_` : "";
  return {
    kernel: {
      name: `matvec_${operand.name}_${made.name}${hasInner ? "inner_" : ""}${joined}${sharing}`,
      wgsl: sharing === "subgroup" ? subgroupWgsl : workgroupWgsl,
      libraries: [
        paramsWgsl,
        ...made.libraries,
        hasInner ? innerWgsl : innerNoneWgsl,
        ...operand.libraries,
      ],
    },
    launch: {
      grid: [Math.ceil(4 * quads / outputs)],
      kept: {},
      constants: { ...constants, PARTS: operands.length },
      formats: { X: x.format, Y: y.format, ...(operand.format ? { B: operand.format } : {}) },
      uniforms: {
        rows: x.rows,
        depth,
        x_stride: x.width / 4,
        ...uniforms,
        ...made.uniforms,
        ...partUniforms(joint, places, depth),
      },
    },
  };
}

/** Units of two chunks where they share a scale and sums leave registers; lanes and turns by the room in a tile. */
function workgroupShape(
  { quads, scaleQuads = Infinity }: VectorOperand,
  rows: number,
  M: number,
  depth: number,
) {
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
