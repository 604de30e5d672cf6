/** Our own side of a contest. */
import type { Gpu } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Entrant } from "./entrant.ts";

/**
 * Our kernels as an entrant.
 * @param work records the work once and gives its results, which are freed afterwards
 * @param free frees the inputs
 * @param options.name where there are two of ours
 */
export function ourEntrant(
  gpu: Gpu,
  work: () => readonly Tensor[],
  free: () => void,
  { name = "longreach", expected }: Partial<Pick<Entrant, "name" | "expected">> = {},
): Entrant {
  return {
    name,
    async run(times) {
      for (let i = 0; i < times; i++) {
        for (const tensor of work()) tensor.free();
      }
      await gpu.settle();
    },
    async values() {
      const tensors = work();
      const values: Float32Array[] = [];
      for (const tensor of tensors) {
        values.push(await gpu.read(tensor));
        tensor.free();
      }
      return values;
    },
    ...(expected ? { expected } : {}),
    free() {
      free();
      return Promise.resolve();
    },
  };
}
