/** Contests of products: f32, and weights of 4 bits. */
import type { Gpu } from "../../kernels/gpu.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { product } from "../../kernels/matvec/matvec.ts";
import { quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import type { Contest } from "./contest.ts";
import { type Entrant, type HostArray, randomArray } from "./entrant.ts";
import { jaxEntrant } from "./jax_js.ts";
import { ourEntrant } from "./longreach.ts";
import { ELEMENT } from "./onnx_model.ts";
import { bytesOf, constant, onnxEntrant } from "./onnxruntime.ts";

type Sizes = readonly [M: number, N: number, K: number];

/** x W^T in f32, the weights as checkpoints hold them. */
export function productContest(gpu: Gpu, [M, N, K]: Sizes): Contest {
  return {
    op: "matmul f32, x W^T",
    shape: `M${M} N${N} K${K}`,
    flops: 2 * M * N * K,
    goals: { "jax-js": 3 },
    async enter() {
      const [x, w] = [randomArray([M, K], 1), randomArray([N, K], 1)];
      const [ourX, ourW] = [gpu.tensor(x.shape, x.data), gpu.tensor(w.shape, w.data)];
      const ours = ourEntrant(gpu, () => [matmul(gpu, ourX, ourW)], () => {
        ourX.free();
        ourW.free();
      });
      const jax = await jaxEntrant([x, w], ({ numpy }) => ([x, w]) => numpy.matmul(x!, w!.transpose()));
      const onnx = await onnxEntrant({
        nodes: [{ op: "Gemm", inputs: ["x", "w"], outputs: ["y"], attributes: { transB: 1 } }],
        inputs: [{ name: "x", type: ELEMENT.float, shape: x.shape }],
        outputs: [{ name: "y", type: ELEMENT.float, shape: [M, N] }],
        initializers: [constant("w", w)],
      }, { x });
      return [ours, jax, onnx];
    },
  };
}

const OUR_F32 = "longreach, f32";
/** As fast as itself, for what two runs of one kernel differ. */
const WITHIN_NOISE = 0.97;

/** Weights in blocks of this many share a scale in MatMulNBits: its own usual choice. */
const ONNX_BLOCK = 32;

/** x W^T with weights of 4 bits: our NF4 in blocks of 64, their whole numbers in blocks of 32. */
export function fourBitContest(gpu: Gpu, [M, N, K]: Sizes): Contest {
  return {
    op: "matmul 4-bit, x W^T",
    shape: `M${M} N${N} K${K}`,
    flops: 2 * M * N * K,
    goals: { onnxruntime: 8, [OUR_F32]: WITHIN_NOISE },
    async enter() {
      const x = randomArray([M, K], 1);
      return [...ours(gpu, x, N), await theirFourBits(gpu, x, N)];
    },
  };
}

/** NF4, and beside it the same product with the weights unpacked. */
function ours(gpu: Gpu, x: HostArray, N: number): Entrant[] {
  const K = x.shape[1]!;
  const dense = gpu.tensor([N, K], randomArray([N, K], 1).data);
  const weight = quantiseNf4(gpu, dense);
  dense.free();
  const unpacked = weight.dequantise(gpu);
  const input = gpu.tensor(x.shape, x.data);
  const packed = ourEntrant(
    gpu,
    () => [product(gpu, input, weight)],
    () => {
      input.free();
      weight.free();
    },
  );
  return [
    packed,
    ourEntrant(gpu, () => [product(gpu, input, unpacked)], () => unpacked.free(), { name: OUR_F32 }),
  ];
}

/** A weight is (code - 8) * scale, two codes a byte, the earlier in the low half. */
async function theirFourBits(gpu: Gpu, x: HostArray, N: number): Promise<Entrant> {
  const [M, K] = x.shape as [number, number];
  const blocks = K / ONNX_BLOCK;
  const codes = Uint8Array.from({ length: N * K / 2 }, () => Math.floor(256 * Math.random()));
  const scales = randomArray([N * blocks], 0.1);
  const unpacked = Float32Array.from({ length: N * K }, (_, i) => {
    const code = i % 2 === 0 ? codes[i >> 1]! & 15 : codes[i >> 1]! >> 4;
    return (code - 8) * scales.data[Math.floor(i / ONNX_BLOCK)]!;
  });
  return await onnxEntrant(
    {
      nodes: [{
        op: "MatMulNBits",
        domain: "com.microsoft",
        inputs: ["x", "codes", "scales"],
        outputs: ["y"],
        attributes: { K, N, bits: 4, block_size: ONNX_BLOCK },
      }],
      inputs: [{ name: "x", type: ELEMENT.float, shape: x.shape }],
      outputs: [{ name: "y", type: ELEMENT.float, shape: [M, N] }],
      initializers: [
        { name: "codes", type: ELEMENT.uint8, shape: [N, blocks, ONNX_BLOCK / 2], bytes: bytesOf(codes) },
        constant("scales", scales),
      ],
    },
    { x },
    async () => {
      const [input, weight] = [gpu.tensor(x.shape, x.data), gpu.tensor([N, K], unpacked)];
      const y = matmul(gpu, input, weight);
      const values = await gpu.read(y);
      for (const tensor of [input, weight, y]) tensor.free();
      return [values];
    },
  );
}
