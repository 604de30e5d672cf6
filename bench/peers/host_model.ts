/** A model of random weights on the host, from which every library of a contest gets the same numbers. */
import type { HostArray } from "./entrant.ts";
import { Random } from "../../data/random.ts";
import { linearsOf, normWeights, tablesOf } from "../../model/tensors.ts";
import type { ModelConfig } from "../../model/model_config.ts";

/**
 * A matrix whose weights are -s, 0 or s, with one s for each block of {@linkcode BLOCK} inputs: NF4 and whole numbers of
 * 4 bits both hold such a matrix without loss, so models in either format compute the same.
 */
export interface Ternary {
  /** (N, K) of -1, 0, 1. */
  readonly signs: Int8Array;
  /** (N, K / BLOCK) */
  readonly scales: Float32Array<ArrayBuffer>;
}

/** Weights that share a scale: NF4's. */
export const BLOCK = 64;

/** A matrix (N, K) in f32, and the ternary numbers that it is made of where it is. */
export interface HostMatrix extends HostArray {
  readonly shape: readonly [number, number];
  readonly ternary: Ternary | undefined;
}

/** How a model's numbers are held: in f32 or f16, activations too, or in 4 bits beside activations in f32. */
export type ModelFormat = "f32" | "f16" | "4-bit";

/** Tensors by the checkpoint's names. */
export interface HostModel {
  readonly config: ModelConfig;
  readonly format: ModelFormat;
  /** Embeddings and head (V, C), linears. */
  readonly matrices: ReadonlyMap<string, HostMatrix>;
  /** Norms (C). */
  readonly norms: ReadonlyMap<string, HostArray>;
}

/**
 * Root mean square of every matrix is 1 / sqrt(inputs), of the norms about 1. The same config gives the same numbers.
 * Numbers are rounded to f16 for it; for 4 bits all matrices are {@linkcode Ternary}.
 */
export function hostModel(config: ModelConfig, format: ModelFormat): HostModel {
  const random = new Random(1);
  const held = (data: Float32Array<ArrayBuffer>) => format === "f16" ? data.map(Math.f16round) : data;
  const matrix = (shape: readonly [number, number]): HostMatrix => {
    const ternary = format === "4-bit" ? randomTernary(shape, random) : undefined;
    const bound = Math.sqrt(3 / shape[1]);
    return {
      shape,
      ternary,
      data: ternary ? floats(ternary) : held(uniform(shape[0] * shape[1], -bound, bound, random)),
    };
  };
  const { vocab_size, hidden_size } = config;
  const matrices = new Map<string, HostMatrix>();
  for (const name of tablesOf(config)) matrices.set(name, matrix([vocab_size, hidden_size]));
  for (const [name, { shape }] of linearsOf(config)) matrices.set(`${name}.weight`, matrix(shape));
  const norms = new Map<string, HostArray>();
  for (const name of normWeights(config).keys()) {
    norms.set(name, { shape: [hidden_size], data: held(uniform(hidden_size, 0.5, 1.5, random)) });
  }
  return { config, format, matrices, norms };
}

function uniform(size: number, low: number, high: number, random: Random): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: size }, () => low + (high - low) * random.uniform());
}

function randomTernary([N, K]: readonly [number, number], random: Random): Ternary {
  const signs = Int8Array.from({ length: N * K }, () => random.below(3) - 1);
  // Two thirds of the weights are not 0.
  const scale = Math.sqrt(1.5 / K);
  const scales = uniform(N * K / BLOCK, 0.5 * scale, 1.5 * scale, random);
  return { signs, scales };
}

function floats({ signs, scales }: Ternary): Float32Array<ArrayBuffer> {
  return Float32Array.from(signs, (sign, i) => sign * scales[Math.floor(i / BLOCK)]!);
}
