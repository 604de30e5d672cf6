import { fillUniform } from "../../kernels/elementwise/fill_random.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { METHODS, type Quantisation, type Quantised } from "../../kernels/quantisation.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { QuantisedWeight } from "../../kernels/weight.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assembleModel, type NamedMatrix } from "./assemble.ts";
import type { ModelConfig } from "../model_config.ts";
import type { LanguageModel } from "../language_model.ts";
import { torchDtypeOf } from "../number_formats.ts";
import { normWeights } from "../tensors.ts";
import { requirePackable, stackOf } from "./load.ts";
import { Uploader } from "./read_ahead.ts";

export interface RandomOptions {
  /** Format of activations. */
  readonly format: Format;
  /** Quantisation of the layers' linears that are not trained. */
  readonly quantisation: Quantisation;
  /** Whether a tensor of the checkpoint is trained: it is then held in f32, with a gradient. */
  readonly isTrained?: (name: string) => boolean;
  /** u32; 1 unless given. */
  readonly seed?: number;
}

/**
 * A model of random weights, made on the device: the tensors, sizes and formats that loading a checkpoint of the
 * type that the config names gives, with norms as in a fresh model, biases of zeros and matrices of root mean square 1 / sqrt(inputs). For measuring; the host
 * holds nothing of the model's size.
 *
 * @throws {UserError} if a linear has rows that its quantisation cannot hold
 */
export async function randomModel(
  gpu: Gpu,
  config: ModelConfig,
  options: RandomOptions,
): Promise<LanguageModel> {
  const { format, quantisation, seed = 1 } = options;
  const stored = Uploader.formatOf(torchDtypeOf(config));
  const isTrained = options.isTrained ?? (() => false);
  const norms = normWeights(config);
  let stream = 0;
  const dense = (format: Format, ...wanted: readonly NamedMatrix[]): Tensor[] => {
    const weights = gpu.emptyTogether(wanted.map(({ name, shape }) => ({ shape, label: name })), format);
    for (const weight of weights) {
      // A uniform distribution's root mean square is its bound over sqrt(3).
      const bound = Math.sqrt(3 / weight.width);
      fillUniform(gpu, weight, { seed, stream: stream++, low: -bound, high: bound });
    }
    return weights;
  };
  const formatOf = (name: string): Format => isTrained(name) ? "f32" : stored;
  const isQuantised = (name: string): boolean => quantisation !== "none" && !isTrained(name);
  const quantised = (...wanted: readonly NamedMatrix[]): QuantisedWeight[] => {
    const method = quantisation as Quantised;
    for (const { name, shape } of wanted) requirePackable(name, shape, method);
    return METHODS[method].random(gpu, wanted.map(({ name, shape }) => ({ shape, label: name })), {
      rms: 1 / Math.sqrt(wanted[0]!.shape[1]),
      seed,
      nextStream: () => stream++,
    });
  };
  return await assembleModel(gpu, config, format, {
    table: (name, shape) => Promise.resolve(dense(formatOf(name), { name, shape })[0]!),
    vector: (name, length) => {
      const value = norms.get(name) ?? 0;
      return Promise.resolve(gpu.tensor([length], new Float32Array(length).fill(value), { label: name }));
    },
    formOf: (name) => isQuantised(name) ? quantisation : formatOf(name),
    matrices: (wanted) => {
      const { name } = wanted[0]!;
      return Promise.resolve(isQuantised(name) ? quantised(...wanted) : dense(formatOf(name), ...wanted));
    },
    stack: async (names, shape, label) => {
      const [first, [rows, width]] = [names[0]!, shape];
      // Under the name of the first: all are trained or none.
      if (!isQuantised(first)) {
        return dense(formatOf(first), { name: first, shape: [names.length * rows, width] })[0]!;
      }
      return await stackOf(
        gpu,
        names,
        label,
        (name) => Promise.resolve(quantised({ name, shape })[0]!),
      );
    },
    isTrained,
  });
}
