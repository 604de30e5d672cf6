/** Values and tensors that tests of several products at once are made of. */
import type { Gpu } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";

type Values = ArrayLike<number>;

/** Product of two tensors, element by element. */
export const times = (a: Values, b: Values): Float64Array =>
  Float64Array.from(a, (value, i) => value * b[i]!);

/** Sum of tensors, element by element. */
export const plus = (...terms: Values[]): Float64Array =>
  Float64Array.from(terms[0]!, (_, i) => terms.reduce((sum, term) => sum + term[i]!, 0));

/** Uploads tensors of one shape side by side in memory. */
export function together(gpu: Gpu, values: readonly Float32Array[], shape: readonly number[]): Tensor[] {
  const tensors = gpu.zerosTogether(values.map((_, i) => ({ shape, label: `tensor ${i}` })));
  tensors.forEach((tensor, i) => gpu.write(tensor, values[i]!));
  return tensors;
}

/** Puts the columns of blocks of as many rows side by side. */
export function beside(blocks: readonly Values[], rows: number): Float64Array {
  const width = blocks[0]!.length / rows;
  return Float64Array.from({ length: blocks.length * rows * width }, (_, i) => {
    const [row, column] = [Math.floor(i / (blocks.length * width)), i % (blocks.length * width)];
    return blocks[Math.floor(column / width)]![row * width + column % width]!;
  });
}
