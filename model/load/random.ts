import { fillBits, fillUniform } from "../../kernels/elementwise/fill_random.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import type { Weight } from "../../kernels/matmul/matmul.ts";
import { emptyNf4 } from "../../kernels/nf4/nf4.ts";
import { NF4_VALUES } from "../../kernels/nf4/format.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assembleModel } from "./assemble.ts";
import type { ModelConfig } from "../model_config.ts";
import type { LanguageModel } from "../language_model.ts";
import { torchDtypeOf } from "../number_formats.ts";
import { normWeights } from "../tensors.ts";
import { requirePackable } from "./load.ts";
import { Uploader } from "./read_ahead.ts";

export interface RandomOptions {
  /** How activations are stored. */
  readonly format: Format;
  /** Keep the layers' linears in NF4. */
  readonly loadIn4bit: boolean;
  /** Keep the scales of NF4 in 8 bits. */
  readonly doubleQuant: boolean;
  /** Whether a tensor of the checkpoint is trained: it is then held in f32, with a gradient. */
  readonly isTrained?: (name: string) => boolean;
  /** u32; 1 unless given. */
  readonly seed?: number;
}

/**
 * A model of random weights, made on the device: the tensors, sizes and formats that loading a checkpoint of the
 * type that the config names gives, with norms of ones, biases of zeros and matrices of root mean square 1 / sqrt(inputs). For measuring; the host
 * holds nothing of the model's size.
 *
 * @throws {UserError} if a linear that should be in 4 bits has rows that are no multiple of 8
 */
export async function randomModel(
  gpu: Gpu,
  config: ModelConfig,
  options: RandomOptions,
): Promise<LanguageModel> {
  const { format, loadIn4bit, doubleQuant, seed = 1 } = options;
  const stored = Uploader.formatOf(torchDtypeOf(config));
  const isTrained = options.isTrained ?? (() => false);
  const norms = normWeights(config);
  let stream = 0;
  const dense = (name: string, shape: readonly [number, number]): Tensor => {
    const weight = gpu.empty(shape, isTrained(name) ? "f32" : stored, name);
    // A uniform distribution's root mean square is its bound over sqrt(3).
    const bound = Math.sqrt(3 / shape[1]);
    fillUniform(gpu, weight, { seed, stream: stream++, low: -bound, high: bound });
    return weight;
  };
  const nf4 = (name: string, shape: readonly [number, number]): Weight => {
    requirePackable(name, shape);
    const weight = emptyNf4(gpu, shape, { doubleQuant, label: name });
    const scale = 1 / Math.sqrt(shape[1]) / rms(NF4_VALUES);
    fillBits(gpu, weight.codes, seed, stream++);
    if (weight.nested) {
      fillBits(gpu, weight.absmax, seed, stream++);
      // The offset in front, then what the 8-bit codes from -1 to 1 are multiplied by.
      const nested = new Float32Array(weight.nested.scales.size).fill(SCALE_SPREAD * scale);
      nested[0] = scale;
      gpu.write(weight.nested.scales, nested);
    } else {
      const [low, high] = [(1 - SCALE_SPREAD) * scale, (1 + SCALE_SPREAD) * scale];
      fillUniform(gpu, weight.absmax, { seed, stream: stream++, low, high });
    }
    return weight;
  };
  return await assembleModel(gpu, config, format, {
    table: (name, shape) => Promise.resolve(dense(name, shape)),
    vector: (name, length) => {
      const value = norms.has(name) ? 1 : 0;
      return Promise.resolve(gpu.tensor([length], new Float32Array(length).fill(value), { label: name }));
    },
    matrix: (name, shape) =>
      Promise.resolve(loadIn4bit && !isTrained(name) ? nf4(name, shape) : dense(name, shape)),
    isTrained,
  });
}

/** Scales lie this share above and below their mean: about what normal weights in blocks of 64 have. */
const SCALE_SPREAD = 0.3;

function rms(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length);
}
