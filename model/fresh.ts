import type { Bytes } from "../checkpoint/files.ts";
import type { TensorInfo, WeightReader } from "../checkpoint/weights.ts";
import { Random } from "../data/random.ts";
import { UserError } from "../errors.ts";
import type { LlamaConfig } from "./config.ts";
import { checkpointTensors } from "./tensors.ts";

/**
 * A checkpoint that was never trained: matrices drawn from a normal distribution with deviation 1 / sqrt(inputs), norms
 * of ones, biases of zeros. The same seed gives the same values, tensor by tensor.
 */
export function freshWeights(config: LlamaConfig, seed: number): WeightReader {
  const tensors = checkpointTensors(config);
  const order = [...tensors.keys()];

  function info(name: string): TensorInfo {
    const shape = tensors.get(name);
    if (!shape) throw new UserError(`Cannot make weights: the model has no tensor "${name}"`);
    return { name, dtype: "F32", shape, byteLength: 4 * shape.reduce((a, b) => a * b, 1) };
  }

  function read(name: string): Promise<Bytes> {
    const { shape, byteLength } = info(name);
    const values = new Float32Array(byteLength / 4);
    if (name.endsWith("norm.weight")) values.fill(1);
    else if (shape.length === 2) {
      fillNormal(values, 1 / Math.sqrt(shape[1]!), seed * order.length + order.indexOf(name));
    }
    return Promise.resolve(new Uint8Array(values.buffer));
  }

  return {
    names: () => order,
    has: (name) => tensors.has(name),
    info,
    read,
    async readRows(name, start, count) {
      const { shape, byteLength } = info(name);
      const rowBytes = byteLength / shape[0]!;
      return (await read(name)).slice(start * rowBytes, (start + count) * rowBytes);
    },
    close() {},
  };
}

/** Standard normal draws times `deviation` (Box and Muller 1958). */
export function fillNormal(values: Float32Array, deviation: number, seed: number): void {
  const random = new Random(seed);
  for (let i = 0; i < values.length; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - random.uniform()));
    values[i] = deviation * radius * Math.cos(2 * Math.PI * random.uniform());
  }
}
