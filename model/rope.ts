import type { ModelConfig } from "./config.ts";

/** Angles of rotary position embeddings of R elements of a head for positions 0 to P - 1, on the host in float64, stored as f32. */
export interface RopeTables {
  /** (P, R / 2) */
  readonly cos: Float32Array;
  readonly sin: Float32Array;
}

/**
 * Tables for `length` positions. At position 100,000 an angle computed in f32 is off by thousandths; in float64 the
 * error is that of the stored cosine alone.
 *
 * @see Su et al. 2021, arXiv:2104.09864
 */
export function ropeTables(config: ModelConfig, length: number): RopeTables {
  const frequencies = ropeFrequencies(config, length);
  const scaling = config.rope_scaling;
  const positionScale = scaling?.type === "linear" ? 1 / scaling.factor : 1;
  const magnitude = scaling?.type === "yarn" ? scaling.attention_factor : 1;
  const half = frequencies.length;
  const cos = new Float32Array(length * half);
  const sin = new Float32Array(length * half);
  for (let position = 0; position < length; position++) {
    for (let i = 0; i < half; i++) {
      const angle = position * positionScale * frequencies[i]!;
      cos[position * half + i] = magnitude * Math.cos(angle);
      sin[position * half + i] = magnitude * Math.sin(angle);
    }
  }
  return { cos, sin };
}

/** Radians per position of each pair, (R / 2); `length` matters for dynamic scaling only. */
export function ropeFrequencies(config: ModelConfig, length: number): Float64Array {
  const { rotary_dim: turned, rope_scaling: scaling, max_position_embeddings } = config;
  const theta = scaling?.type === "dynamic" && length > max_position_embeddings
    ? config.rope_theta *
      (scaling.factor * length / max_position_embeddings - (scaling.factor - 1)) **
        (turned / (turned - 2))
    : config.rope_theta;
  const plain = Float64Array.from({ length: turned / 2 }, (_, i) => theta ** (-2 * i / turned));
  switch (scaling?.type) {
    case "llama3":
      return plain.map((frequency) => llama3Frequency(frequency, scaling));
    case "yarn":
      return plain.map((frequency, i) => {
        const share = yarnInterpolation(i, theta, turned, scaling);
        return frequency * (1 - share) + frequency / scaling.factor * share;
      });
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

/** How much pair `i` is interpolated, 0 to 1. Peng et al. 2023, YaRN, arXiv:2309.00071, section 3.2. */
function yarnInterpolation(i: number, theta: number, turned: number, scaling: Scaling<"yarn">): number {
  const { original_max_position_embeddings: original, beta_fast, beta_slow } = scaling;
  const pairOf = (rotations: number) =>
    turned * Math.log(original / (rotations * 2 * Math.PI)) / (2 * Math.log(theta));
  const low = Math.max(0, Math.floor(pairOf(beta_fast)));
  const high = Math.min(turned - 1, Math.ceil(pairOf(beta_slow)));
  return Math.min(1, Math.max(0, (i - low) / Math.max(high - low, 0.001)));
}
