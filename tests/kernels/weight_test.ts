/** A form of weights that is none of the engine's: what {@linkcode QuantisedWeight} asks for is all that products need. */
import { Gpu, type Sharing } from "../../kernels/gpu.ts";
import { matmul, matmulBackwardInput } from "../../kernels/matmul/matmul.ts";
import { matmulBackwardInputReference, matmulReference } from "../../kernels/matmul/reference.ts";
import { product } from "../../kernels/matvec/matvec.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Operand, QuantisedWeight, VectorOperand, WeightForm } from "../../kernels/weight.ts";
import { assert } from "../support/assert_close.ts";
import { normal } from "../support/random.ts";
import { ALL_SHARINGS, sharingTest } from "../support/sharing.ts";

/** Four weights of 8 bits a word; the largest magnitude of a row is its scale. */
const WORDS = `
@group(0) @binding(2) var<storage, read> b: array<u32>;          // (N, K / 4)
@group(0) @binding(3) var<storage, read> scales: array<f32>;     // (N)
fn b_value_at(row: u32, q: u32, width: u32) -> vec4f { return unpack4x8snorm(b[row * width + q]) * scales[row]; }
fn b_begin(thread: u32) {}`;

const QUAD = `
#needs b_value_at
alias QuadB = vec4f;
fn b_value(quad: QuadB) -> vec4f { return quad; }
fn b_fetch_quad(quad: ptr<function, QuadB>, jq: u32, e: u32, rq: u32) {
  let at = select(vec2u(4u * rq + e, min(jq, p.cols - 1u)), vec2u(4u * jq + e, rq), B_ALONG);
  *quad = b_value_at(min(at.x, p.b_rows - 1u), at.y, p.b_stride);
}`;

const VECTOR = `
#needs b_value_at
const QUADS = 1u;
alias Chunk = vec4f;
fn b_chunk(row: u32, c: u32) -> Chunk { return b_value_at(row, c, p.depth); }
fn b_quad(chunk: Chunk, e: u32) -> vec4f { return chunk; }
fn b_next(chunk: Chunk) -> Chunk { return chunk; }
fn b_scale(row: u32, c: u32) -> f32 { return 1.0; }`;

const INT8: WeightForm = {
  name: "int8",
  layouts: ["nt", "nn"],
  families: ["workgroup"],
  pieces: () => ({ libraries: [QUAD] }),
};

class Int8Weight implements QuantisedWeight {
  readonly label = "int8";
  readonly shape: readonly [number, number];
  readonly #codes: Tensor;
  readonly #scales: Tensor;
  readonly #values: Float32Array;

  constructor(gpu: Gpu, shape: readonly [number, number], values: Float32Array) {
    const [rows, width] = this.shape = shape;
    const codes = new Int8Array(values.length);
    const scales = new Float32Array(rows);
    for (let row = 0; row < rows; row++) {
      const part = values.subarray(row * width, (row + 1) * width);
      scales[row] = part.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      codes.set(part.map((value) => Math.round(127 * value / scales[row]!)), row * width);
    }
    this.#codes = gpu.tensor([rows, width / 4], new Uint32Array(codes.buffer));
    this.#scales = gpu.tensor([rows], scales);
    this.#values = Float32Array.from(codes, (code, i) => code / 127 * scales[Math.floor(i / width)]!);
  }

  get byteLength(): number {
    return this.#codes.byteLength + this.#scales.byteLength;
  }

  operands(): Operand[] {
    const [rows, width] = this.shape;
    return [{
      form: INT8,
      name: "int8",
      start: 0,
      rows,
      width,
      libraries: [WORDS],
      tensors: this.#tensors(),
      format: undefined,
      firstQuad: 0,
      dequantise: (gpu) => this.dequantise(gpu),
    }];
  }

  vectorOperands(_: Sharing): VectorOperand[] {
    const [rows] = this.shape;
    const libraries = [VECTOR, WORDS];
    return [{
      name: "int8",
      start: 0,
      rows,
      tensors: this.#tensors(),
      libraries,
      format: undefined,
      quads: 1,
    }];
  }

  dequantise(gpu: Gpu): Tensor {
    return gpu.tensor(this.shape, this.#values);
  }

  stack(): never {
    throw new Error("no model with experts here");
  }

  free(): void {
    for (const tensor of Object.values(this.#tensors())) tensor.free();
  }

  #tensors() {
    return { b: this.#codes, scales: this.#scales };
  }
}

for (const sharing of ALL_SHARINGS) {
  sharingTest(sharing, `A weight of 8 bits multiplies as its values do, ${sharing} sharing`, async () => {
    for (const tuning of [{}, { "matmul nt int8 medium": "dequantise first" }] as Record<string, string>[]) {
      using gpu = await Gpu.open({ sharing, poison: true, tuning });
      for (const [M, N, K] of [[1, 12, 8], [5, 36, 68], [70, 44, 100]] as const) {
        const weight = new Int8Weight(gpu, [N, K], normal(1, N * K));
        const dense = weight.dequantise(gpu);
        const w = await gpu.read(dense);
        const [x, dy] = [normal(2, M * K), normal(3, M * N)];
        const [tx, tdy] = [gpu.tensor([M, K], x), gpu.tensor([M, N], dy)];
        const before = gpu.memory.liveBytes;
        const results = [
          product(gpu, tx, weight),
          matmul(gpu, tx, weight),
          matmulBackwardInput(gpu, tdy, weight),
        ];
        const made = results.reduce((sum, { byteLength }) => sum + byteLength, 0);
        assert(gpu.memory.liveBytes - before < made + 3 * 256, "what was dequantised is freed");
        const y = matmulReference(x, w, { M, N, K });
        const dx = matmulBackwardInputReference(dy, w, { M, N, K });
        for (const [i, expected] of [y, y, dx].entries()) {
          const actual = await gpu.read(results[i]!);
          expected.forEach((value, at) => {
            const error = Math.abs(actual[at]! - value);
            assert(error <= 1e-5 * (K + N), `product ${i} of ${M}x${N}x${K}: error ${error} at ${at}`);
          });
        }
        weight.free();
      }
    }
  });
}
