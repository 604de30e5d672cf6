/** The contest of a SwiGLU MLP with all its gradients. */
import { swiglu, swigluBackwardInPlace } from "../../kernels/activation/swiglu.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { matmul, matmulBackwardInput, matmulBackwardWeight } from "../../kernels/matmul/matmul.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Contest } from "./contest.ts";
import { randomArray } from "./entrant.ts";
import { jaxEntrant } from "./jax_js.ts";
import { ourEntrant } from "./longreach.ts";

/** Gradients of x and of the three weights of half the sum of squares of y = (silu(x Wg^T) * x Wu^T) Wd^T. */
export function mlpContest(gpu: Gpu, [M, C, F]: readonly [M: number, C: number, F: number]): Contest {
  return {
    op: "SwiGLU MLP, forward and backward",
    shape: `M${M} C${C} F${F}`,
    flops: 3 * 3 * 2 * M * C * F,
    goals: { "jax-js": 3 },
    async enter() {
      const bound = 2 / Math.sqrt(C);
      const inputs = [
        randomArray([M, C], 1),
        randomArray([F, C], bound),
        randomArray([F, C], bound),
        randomArray([C, F], bound),
      ];
      const tensors = inputs.map(({ shape, data }) => gpu.tensor(shape, data));
      const ours = ourEntrant(gpu, () => mlpGradients(gpu, tensors), () => {
        for (const tensor of tensors) tensor.free();
      });
      const jax = await jaxEntrant(inputs, ({ grad, nn, numpy }) =>
        grad(([x, wGate, wUp, wDown]) => {
          const gate = numpy.matmul(x!.ref, wGate!.transpose());
          const up = numpy.matmul(x!, wUp!.transpose());
          const y = numpy.matmul(nn.silu(gate).mul(up), wDown!.transpose());
          return numpy.square(y).sum().mul(0.5);
        }));
      return [ours, jax];
    },
  };
}

/** dx, dWg, dWu, dWd; the caller frees them. */
function mlpGradients(gpu: Gpu, [x, wGate, wUp, wDown]: readonly Tensor[]): Tensor[] {
  const gate = matmul(gpu, x!, wGate!);
  const up = matmul(gpu, x!, wUp!);
  const hidden = swiglu(gpu, gate, up);
  const y = matmul(gpu, hidden, wDown!);
  const [dwGate, dwUp, dwDown] = [wGate!, wUp!, wDown!].map(({ shape }) => gpu.empty(shape));
  matmulBackwardWeight(gpu, y, hidden, { into: dwDown! });
  const dHidden = matmulBackwardInput(gpu, y, wDown!);
  const { dGate, dUp } = swigluBackwardInPlace(gpu, dHidden, { gate, up });
  matmulBackwardWeight(gpu, dGate, x!, { into: dwGate! });
  matmulBackwardWeight(gpu, dUp, x!, { into: dwUp! });
  const dx = matmulBackwardInput(gpu, dGate, wGate!);
  matmulBackwardInput(gpu, dUp, wUp!, { into: dx, beta: 1 });
  for (const tensor of [gate, up, hidden, y, dHidden]) tensor.free();
  return [dx, dwGate!, dwUp!, dwDown!];
}
