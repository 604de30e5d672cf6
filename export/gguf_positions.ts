/** A model's positions as llama.cpp reads them from a GGUF file. */
import type { GgufTensor, GgufValue } from "../checkpoint/gguf.ts";
import { UserError } from "../errors.ts";
import { contextLength } from "../model/positions.ts";
import type { GgufForm } from "../model/architecture.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { ropeFrequencies } from "../model/rope.ts";

/** YaRN's numbers of rotations that llama.cpp takes, whatever the file says. */
const YARN = { beta_fast: 32, beta_slow: 1 } as const;

/**
 * Gives the keys of the metadata.
 * @param form with whose `architecture` they begin
 * @throws {UserError} if llama.cpp would rotate by other angles
 */
export function positionKeys(config: ModelConfig, form: GgufForm): [string, GgufValue][] {
  const { rope_scaling: scaling, rope_theta, rotary_dim, max_position_embeddings } = config;
  const { architecture, factors, hasWindowKey } = form;
  const plain: [string, GgufValue][] = [
    [`${architecture}.rope.dimension_count`, { u32: rotary_dim }],
    [`${architecture}.rope.freq_base`, { f32: rope_theta }],
  ];
  if (hasWindowKey) {
    const window = config.layers[0]!.sliding_window ?? 0;
    plain.push([`${architecture}.attention.sliding_window`, { u32: window }]);
  }
  const scaled = (factor: number, original: number): [string, GgufValue][] => [
    ...plain,
    [`${architecture}.rope.scaling.type`, scaling!.type],
    [`${architecture}.rope.scaling.factor`, { f32: factor }],
    [`${architecture}.rope.scaling.original_context_length`, { u32: original }],
  ];
  switch (scaling?.type) {
    case undefined:
      return plain;
    // As tensors: see positionTensors.
    case "llama3":
      if (factors === "longrope") break;
      return plain;
    case "longrope":
      if (factors !== "longrope") break;
      return [
        ...plain,
        [
          `${architecture}.rope.scaling.original_context_length`,
          { u32: scaling.original_max_position_embeddings },
        ],
        [`${architecture}.rope.scaling.attn_factor`, { f32: scaling.attention_factor }],
      ];
    case "linear":
      return scaled(scaling.factor, max_position_embeddings);
    case "yarn": {
      const { factor, attention_factor, truncate = true, beta_fast, beta_slow } = scaling;
      const given = { beta_fast, beta_slow, truncate };
      for (const [key, value] of Object.entries({ ...YARN, truncate: true })) {
        const own = given[key as keyof typeof given];
        if (own === value) continue;
        throw new UserError(
          `Cannot write GGUF: the model's rope_scaling of type "yarn" has ${key} ${own}, and llama.cpp computes ` +
            `${value} for this architecture`,
        );
      }
      // llama.cpp multiplies what the file says by YaRN's own factor.
      const share = attention_factor / (0.1 * Math.log(factor) + 1);
      const keys = scaled(factor, scaling.original_max_position_embeddings);
      if (Math.abs(share - 1) > 1e-6) keys.push([`${architecture}.rope.scaling.attn_factor`, { f32: share }]);
      return keys;
    }
  }
  throw new UserError(
    `Cannot write GGUF: llama.cpp's architecture "${architecture}" has no rope_scaling of type "${
      scaling!.type
    }"`,
  );
}

/**
 * Gives llama.cpp's tensors of divisors of the frequencies: for Llama-3.1's stretching of the slow rotations, and for
 * longrope's factors, of which it takes the long ones where its context is longer than the original.
 */
export function positionTensors({ rope_scaling, ...config }: ModelConfig): GgufTensor[] {
  switch (rope_scaling?.type) {
    case "llama3": {
      const plain = ropeFrequencies({ ...config, rope_scaling: null }, 0);
      const scaled = ropeFrequencies({ ...config, rope_scaling }, 0);
      return [divisors("rope_freqs", plain.map((frequency, i) => frequency / scaled[i]!))];
    }
    case "longrope":
      return [
        divisors("rope_factors_long", rope_scaling.long_factor),
        divisors("rope_factors_short", rope_scaling.short_factor),
      ];
    default:
      return [];
  }
}

function divisors(name: string, values: ArrayLike<number>): GgufTensor {
  const factors = Float32Array.from(values);
  return {
    name: `${name}.weight`,
    shape: [factors.length],
    type: "F32",
    readRows: () => Promise.resolve({ bytes: new Uint8Array(factors.buffer), dtype: "F32" }),
  };
}

/** Gives the key of the window that some layers have. @param architecture llama.cpp's name, with which it begins */
export function windowKeys({ layers }: ModelConfig, architecture: string): [string, GgufValue][] {
  const window = layers.find(({ sliding_window }) => sliding_window !== null)?.sliding_window;
  return window ? [[`${architecture}.attention.sliding_window`, { u32: window }]] : [];
}

/** Notes for the user on how llama.cpp will read the model, one line each. */
export function positionNotes(config: ModelConfig): string[] {
  const windows = config.layers.map(({ sliding_window }) => sliding_window ?? Infinity);
  const window = Math.min(...windows);
  if (window >= contextLength(config)) return [];
  return [
    `llama.cpp has no sliding window for this architecture: tokens more than ${window} apart will see each other there`,
  ];
}
