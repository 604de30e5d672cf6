import type { TensorInfo, WeightReader } from "../../checkpoint/weights.ts";
import { Random } from "../../data/random.ts";
import { UserError } from "../../errors.ts";
import type { ModelConfig } from "../model_config.ts";
import { checkpointTensors, normWeights } from "../tensors.ts";

/**
 * A checkpoint that was never trained: matrices drawn from a normal distribution with deviation 1 / sqrt(inputs), norms
 * that change nothing but the scale, biases of zeros. The same seed gives the same values, tensor by tensor.
 */
export function freshWeights(config: ModelConfig, seed: number): WeightReader {
  const tensors = checkpointTensors(config);
  const order = [...tensors.keys()];
  const norms = normWeights(config);

  function info(name: string): TensorInfo {
    const shape = tensors.get(name);
    if (!shape) throw new UserError(`Cannot make weights: the model has no tensor "${name}"`);
    return { name, dtype: "F32", shape, byteLength: 4 * shape.reduce((a, b) => a * b, 1) };
  }

  /** Numbers `start` to `start + length` of a tensor. */
  function values(name: string, start: number, length: number): Float32Array<ArrayBuffer> {
    const { shape } = info(name);
    const drawn = new Float32Array(length);
    const norm = norms.get(name);
    if (norm !== undefined) drawn.fill(norm);
    else if (shape.length === 2) {
      fillNormal(drawn, 1 / Math.sqrt(shape[1]!), seed * order.length + order.indexOf(name), start);
    }
    return drawn;
  }

  return {
    names: () => order,
    has: (name) => tensors.has(name),
    info,
    // deno-lint-ignore require-await
    read: async (name) => new Uint8Array(values(name, 0, info(name).byteLength / 4).buffer),
    // deno-lint-ignore require-await
    async readInto(name, from, into) {
      const [first, end] = [Math.floor(from / 4), Math.ceil((from + into.length) / 4)];
      const bytes = new Uint8Array(values(name, first, end - first).buffer);
      into.set(bytes.subarray(from - 4 * first, from - 4 * first + into.length));
    },
    close() {},
  };
}

/** Standard normal draws times `deviation`, from draw `first` of the seed on (Box and Muller 1958). */
export function fillNormal(values: Float32Array, deviation: number, seed: number, first = 0): void {
  const random = new Random(seed, 2 * first);
  for (let i = 0; i < values.length; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - random.uniform()));
    values[i] = deviation * radius * Math.cos(2 * Math.PI * random.uniform());
  }
}
