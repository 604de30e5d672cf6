import type { ModelConfig } from "./model_config.ts";

/** Cosines and sines of the rotary angles of R elements of a head for positions 0 to P - 1, on the host in float64, stored as f32. */
export interface RopeTables {
  /** (P, R / 2) */
  readonly cos: Float32Array;
  readonly sin: Float32Array;
}

/** The part of a model's shape that decides the angles. */
export type RopeShape = Pick<
  ModelConfig,
  "rotary_dim" | "rope_theta" | "rope_scaling" | "max_position_embeddings"
>;

/**
 * Tables for `length` positions. At position 100,000 an angle computed in f32 is off by thousandths; in float64 the
 * error is that of the stored cosine alone.
 *
 * @see Su et al. 2021, arXiv:2104.09864
 */
export function ropeTables(config: RopeShape, length: number): RopeTables {
  const scaling = config.rope_scaling;
  const frequencies = scaledFrequencies(config, length);
  const magnitude = scaling && "attention_factor" in scaling ? scaling.attention_factor : 1;
  const half = frequencies.length;
  const cos = new Float32Array(length * half);
  const sin = new Float32Array(length * half);
  for (let position = 0; position < length; position++) {
    for (let i = 0; i < half; i++) {
      const angle = position * frequencies[i]!;
      cos[position * half + i] = magnitude * Math.cos(angle);
      sin[position * half + i] = magnitude * Math.sin(angle);
    }
  }
  return { cos, sin };
}

/**
 * Table of one row, (1, R / 2): the rotation by `count` positions in sequences of `length`. Without what yarn and longrope
 * multiply cosines and sines with, so that it only moves what is rotated already.
 */
export function ropeShift(config: RopeShape, count: number, length: number): RopeTables {
  const angles = scaledFrequencies(config, length).map((frequency) => count * frequency);
  return { cos: Float32Array.from(angles, Math.cos), sin: Float32Array.from(angles, Math.sin) };
}

/** Radians per position of each pair, (R / 2), linear scaling included. */
function scaledFrequencies(config: RopeShape, length: number): Float64Array {
  const scaling = config.rope_scaling;
  const positionScale = scaling?.type === "linear" ? 1 / scaling.factor : 1;
  return ropeFrequencies(config, length).map((frequency) => positionScale * frequency);
}

/** Tells whether tables for `made` tokens serve sequences of `length`. */
export function tablesServe({ rope_scaling: scaling }: RopeShape, made: number, length: number): boolean {
  // Dynamic scaling rotates by other angles for every length: what ran before must not matter.
  if (scaling?.type === "dynamic") return made === length;
  if (scaling?.type === "longrope") {
    const original = scaling.original_max_position_embeddings;
    return made >= length && (made > original) === (length > original);
  }
  return made >= length;
}

/** Radians per position of each pair, (R / 2); `length` matters for dynamic scaling and longrope only. */
export function ropeFrequencies(config: RopeShape, length: number): Float64Array {
  const { rotary_dim: dim, rope_scaling: scaling, max_position_embeddings } = config;
  const theta = scaling?.type === "dynamic" && length > max_position_embeddings
    ? config.rope_theta *
      (scaling.factor * length / max_position_embeddings - (scaling.factor - 1)) **
        (dim / (dim - 2))
    : config.rope_theta;
  const plain = Float64Array.from({ length: dim / 2 }, (_, i) => theta ** (-2 * i / dim));
  switch (scaling?.type) {
    case "llama3":
      return plain.map((frequency) => llama3Frequency(frequency, scaling));
    case "yarn": {
      const range = yarnRange(theta, dim, scaling);
      return plain.map((frequency, i) => {
        const share = yarnInterpolation(i, range);
        return frequency * (1 - share) + frequency / scaling.factor * share;
      });
    }
    case "longrope": {
      const { short_factor, long_factor, original_max_position_embeddings: original } = scaling;
      const factors = length > original ? long_factor : short_factor;
      return plain.map((frequency, i) => frequency / factors[i]!);
    }
    default:
      return plain;
  }
}

type Scaling<T extends string> = Extract<NonNullable<ModelConfig["rope_scaling"]>, { type: T }>;

/** Long waves are stretched, short ones kept, those between blended (Llama 3.1's model card and reference code). */
function llama3Frequency(frequency: number, scaling: Scaling<"llama3">): number {
  const { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings: original } = scaling;
  const waves = original * frequency / (2 * Math.PI);
  if (waves < low_freq_factor) return frequency / factor;
  if (waves > high_freq_factor) return frequency;
  const smooth = (waves - low_freq_factor) / (high_freq_factor - low_freq_factor);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

/** Pairs before the first are kept, pairs after the last interpolated. Peng et al. 2023, YaRN, arXiv:2309.00071, section 3.2. */
function yarnRange(theta: number, dim: number, scaling: Scaling<"yarn">): readonly [number, number] {
  const { original_max_position_embeddings: original, beta_fast, beta_slow, truncate = true } = scaling;
  const pairOf = (rotations: number) =>
    dim * Math.log(original / (rotations * 2 * Math.PI)) / (2 * Math.log(theta));
  const [first, last] = [pairOf(beta_fast), pairOf(beta_slow)];
  return [
    Math.max(0, truncate ? Math.floor(first) : first),
    Math.min(dim - 1, truncate ? Math.ceil(last) : last),
  ];
}

/** Share by which pair `i` is interpolated, 0 to 1. */
function yarnInterpolation(i: number, [low, high]: readonly [number, number]): number {
  const width = high === low ? 0.001 : high - low;
  return Math.min(1, Math.max(0, (i - low) / width));
}
