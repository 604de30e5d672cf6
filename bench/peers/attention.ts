/** Contests of causal attention. */
import { attention, attentionBackward } from "../../kernels/attention/attention.ts";
import { makeAttentionMap } from "../../kernels/attention/map.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Contest } from "./contest.ts";
import { type HostArray, randomArray } from "./entrant.ts";
import { jaxEntrant } from "./jax_js.ts";
import { ourEntrant } from "./longreach.ts";
import { ELEMENT } from "./onnx_model.ts";
import { bytesOf, onnxEntrant } from "./onnxruntime.ts";

interface Sizes {
  readonly heads: number;
  readonly tokens: number;
  readonly headDim: number;
}

/** Half of the square of scores, two products forward, five going back. */
const FLOPS = { forward: 2, both: 7 } as const;

function nameOf({ heads, tokens, headDim }: Sizes): string {
  return `H${heads} T${tokens} D${headDim}`;
}

/** o from q, k, v. */
export function attentionContest(gpu: Gpu, sizes: Sizes): Contest {
  const { heads, tokens, headDim } = sizes;
  return {
    op: "causal attention",
    shape: nameOf(sizes),
    flops: FLOPS.forward * heads * tokens * tokens * headDim,
    goals: { "jax-js": 4, onnxruntime: 4 },
    async enter() {
      const qkv = randomInputs(sizes);
      const { tensors: [q, k, v], map, free } = upload(gpu, qkv, sizes);
      const ours = ourEntrant(gpu, () => {
        const { o, lse } = attention(gpu, q!, k!, v!, map, { heads, kvHeads: heads, headDim });
        lse.free();
        return [o];
      }, free);
      const jax = await jaxEntrant(
        qkv,
        ({ nn }) => ([q, k, v]) => nn.dotProductAttention(q!, k!, v!, { isCausal: true }),
      );
      return [ours, jax, await onnxAttention(qkv, sizes)];
    },
  };
}

/** Gradients of q, k and v of the sum of squares of o, and o on the way. */
export function attentionGradientContest(gpu: Gpu, sizes: Sizes): Contest {
  const { heads, tokens, headDim } = sizes;
  return {
    op: "causal attention, forward and backward",
    shape: nameOf(sizes),
    flops: FLOPS.both * heads * tokens * tokens * headDim,
    goals: { "jax-js": 3 },
    async enter() {
      const qkv = randomInputs(sizes);
      const { tensors: [q, k, v], map, free } = upload(gpu, qkv, sizes);
      const shape = { heads, kvHeads: heads, headDim };
      const ours = ourEntrant(gpu, () => {
        const { o, lse } = attention(gpu, q!, k!, v!, map, shape);
        const { dq, dk, dv } = attentionBackward(gpu, o, { q: q!, k: k!, v: v!, o, lse }, map, shape);
        o.free();
        lse.free();
        return [dq, dk, dv];
      }, free);
      const jax = await jaxEntrant(qkv, ({ grad, nn, numpy }) =>
        grad(([q, k, v]) => {
          const o = nn.dotProductAttention(q!, k!, v!, { isCausal: true });
          return numpy.square(o).sum().mul(0.5);
        }));
      return [ours, jax];
    },
  };
}

/** q, k, v as (T, H, D): the same bytes as our (T, H D). */
function randomInputs({ heads, tokens, headDim }: Sizes): HostArray[] {
  return [1, 2, 3].map(() => randomArray([tokens, heads, headDim], 1));
}

function upload(gpu: Gpu, qkv: readonly HostArray[], { heads, tokens, headDim }: Sizes) {
  const tensors = qkv.map(({ data }): Tensor => gpu.tensor([tokens, heads * headDim], data));
  const map = makeAttentionMap(gpu, { rows: tokens, starts: [0] });
  const free = () => {
    for (const tensor of tensors) tensor.free();
    map.free();
  };
  return { tensors, map, free };
}

/** GroupQueryAttention over a prompt, without a cache before it. */
async function onnxAttention(qkv: readonly HostArray[], { heads, tokens, headDim }: Sizes) {
  const shape = [1, tokens, heads * headDim];
  const inputs = ["q", "k", "v"];
  const feeds = Object.fromEntries(inputs.map((name, i) => [name, { shape, data: qkv[i]!.data }]));
  return await onnxEntrant({
    nodes: [{
      op: "GroupQueryAttention",
      domain: "com.microsoft",
      inputs: [...inputs, "", "", "last", "total"],
      outputs: ["o"],
      attributes: { num_heads: heads, kv_num_heads: heads },
    }],
    inputs: inputs.map((name) => ({ name, type: ELEMENT.float, shape })),
    outputs: [{ name: "o", type: ELEMENT.float, shape }],
    initializers: [
      { name: "last", type: ELEMENT.int32, shape: [1], bytes: bytesOf(Int32Array.of(tokens - 1)) },
      { name: "total", type: ELEMENT.int32, shape: [1], bytes: bytesOf(Int32Array.of(tokens)) },
    ],
  }, feeds);
}
