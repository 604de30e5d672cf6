/** What a matrix-vector product multiplies: x, or what is made of it as it is read. */
import { ACTS, type GatedActivation, requireTwins } from "../activation/acts.ts";
import type { Gpu } from "../gpu.ts";
import type { RmsNormScale } from "../norm/rms_norm.ts";
import { requireVector } from "../shared/grid.ts";
import { sharingOf } from "../shared/sharing.ts";
import type { Tensor } from "../tensor.ts";
import factorNoneWgsl from "./factor_none.wgsl" with { type: "text" };
import inputWgsl from "./input.wgsl" with { type: "text" };
import inputGatedWgsl from "./input_gated.wgsl" with { type: "text" };
import inputNormWgsl from "./input_norm.wgsl" with { type: "text" };

/** What is multiplied in place of x itself. */
export type VectorInput = NormedVector | GatedVector;

/** RMSNorm of x. */
export interface NormedVector {
  readonly norm: RmsNormScale;
}

/** act(gate) * x. */
export interface GatedVector {
  readonly activation: GatedActivation;
  /** (M, K) in the format of x; undefined where x is (M, 2 K) and each of its rows the gate, then what it gates. */
  readonly gate: Tensor | undefined;
}

/**
 * Whether matvec is to make what it multiplies. Every workgroup does so for itself, which takes less than a dispatch on a
 * GPU, but more on a software adapter, whose workgroups are many and small (docs/lab-log.md).
 */
export function makesInput(gpu: Gpu): boolean {
  return sharingOf(gpu, "matvec") === "workgroup";
}

/** Elements of a row of what is multiplied. */
export function inputWidth(x: Tensor, input: VectorInput | undefined): number {
  return input && "activation" in input && !input.gate ? x.width / 2 : x.width;
}

/** @throws {GpuError} if what it is made of does not fit x */
export function requireInput(x: Tensor, input: VectorInput): void {
  if ("norm" in input) requireVector("matvec", input.norm.weight, x.width, "f32");
  else if (input.gate) requireTwins("matvec", input.gate, x);
}

/** Pieces by which a kernel reads what it multiplies, and what they read. */
export interface InputPieces {
  /** In the kernel's name. */
  readonly name: string;
  readonly libraries: readonly string[];
  readonly tensors: Readonly<Record<string, Tensor>>;
  readonly uniforms: { readonly eps: number; readonly offset: number };
}

const NO_NORM = { eps: 0, offset: 0 };
const PLAIN: InputPieces = {
  name: "",
  libraries: [inputWgsl, factorNoneWgsl],
  tensors: {},
  uniforms: NO_NORM,
};

/** @param x as {@linkcode VectorInput} says */
export function inputPieces(x: Tensor, input: VectorInput | undefined): InputPieces {
  if (!input) return PLAIN;
  if ("norm" in input) {
    const { weight, eps, offset = 0 } = input.norm;
    return {
      name: "norm_",
      libraries: [inputNormWgsl],
      tensors: { norm_weight: weight },
      uniforms: { eps, offset },
    };
  }
  const { activation, gate = x } = input;
  return {
    name: `${activation}_`,
    libraries: [inputGatedWgsl, factorNoneWgsl, ...ACTS[activation]],
    tensors: { gate },
    uniforms: NO_NORM,
  };
}
