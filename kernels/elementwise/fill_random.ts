import { GpuError } from "../errors.ts";
import type { Gpu, Launch } from "../gpu.ts";
import { threadGrid } from "../shared/grid.ts";
import threefryWgsl from "../shared/threefry.wgsl" with { type: "text" };
import { rowRanges, type Tensor } from "../tensor.ts";
import type { Kernel } from "../wgsl.ts";
import drawBitsWgsl from "./draw_bits.wgsl" with { type: "text" };
import drawUniformWgsl from "./draw_uniform.wgsl" with { type: "text" };
import fillRandomWgsl from "./fill_random.wgsl" with { type: "text" };

const UNIFORM: Kernel = {
  name: "fill_uniform",
  wgsl: fillRandomWgsl,
  libraries: [threefryWgsl, drawUniformWgsl],
};
const BITS: Kernel = { name: "fill_bits", wgsl: fillRandomWgsl, libraries: [threefryWgsl, drawBitsWgsl] };

/** Key and range of uniform draws: the same key gives the same values, on every device. */
export interface UniformKey {
  /** u32 */
  readonly seed: number;
  /** u32: values of different streams are independent; 0 unless given. */
  readonly stream?: number;
  readonly low: number;
  readonly high: number;
}

/**
 * Overwrites a tensor with values drawn uniformly from `low` to `high`, of 2^24 steps, rounded to its format.
 *
 * @param x any shape, any float format
 * @throws {GpuError} if `low` is above `high` or one of them is not finite, or if `x` holds whole numbers
 */
export function fillUniform(gpu: Gpu, x: Tensor, { seed, stream = 0, low, high }: UniformKey): void {
  if (!(low <= high && Number.isFinite(high - low))) {
    throw new GpuError(`Cannot fill "${x.label}": there are no values from ${low} to ${high}`);
  }
  const words = x.format === "f32" ? 4 : 2;
  fill(gpu, UNIFORM, x, {
    uniforms: { seed, stream, low, span: high - low },
    constants: { WORDS: words },
    formats: { X: x.format },
  });
}

/**
 * Overwrites a tensor with random bits.
 *
 * @param x any shape, u32
 * @param seed u32
 * @param stream u32: bits of different streams are independent
 * @throws {GpuError} if `x` is not u32
 */
export function fillBits(gpu: Gpu, x: Tensor, seed: number, stream = 0): void {
  if (x.dtype !== "u32") {
    throw new GpuError(`Cannot fill "${x.label}" with random bits: it is ${x.dtype}, not u32`);
  }
  fill(gpu, BITS, x, { uniforms: { seed, stream, low: 0, span: 0 }, constants: { WORDS: 4 } });
}

function fill(gpu: Gpu, kernel: Kernel, x: Tensor, launch: Omit<Launch, "grid">): void {
  for (const { start, end } of rowRanges([x])) {
    const part = x.slice(start, end);
    // Segments start at multiples of 64 rows, so that a quad never spans two.
    gpu.run(kernel, { x: part }, {
      ...launch,
      grid: threadGrid(Math.ceil(part.size / 4)),
      uniforms: {
        ...launch.uniforms,
        words: Math.ceil(part.byteLength / 4),
        first_quad: start * x.width / 4,
      },
    });
  }
}
