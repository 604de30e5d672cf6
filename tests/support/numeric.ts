import type { Gpu } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";

/** Central finite differences of a float64 function, one element at a time. */
export function numericalGradient(
  loss: (x: Float64Array) => number,
  at: Float64Array,
  step = 1e-5,
): Float64Array {
  const x = at.slice();
  return x.map((value, i) => {
    x[i] = value + step;
    const above = loss(x);
    x[i] = value - step;
    const below = loss(x);
    x[i] = value;
    return (above - below) / (2 * step);
  });
}

/** Sum of products: turns an output into a scalar loss whose gradient at the output is `weights`. */
export function dot(values: ArrayLike<number>, weights: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * weights[i]!;
  return sum;
}

/** A tensor in the given format, and the float64 values it holds after rounding to it. */
export function inFormat(
  gpu: Gpu,
  shape: readonly number[],
  values: Float32Array,
  format: Format,
): { tensor: Tensor; values: Float64Array } {
  if (format === "f32") return { tensor: gpu.tensor(shape, values), values: Float64Array.from(values) };
  const bits = format === "f16" ? f16Bits(values) : bf16Bits(values);
  const tensor = gpu.tensor(shape, new Uint8Array(bits.buffer), { dtype: format });
  return { tensor, values: rounded(values, format) };
}

/** The nearest values in the format, ties to even. */
export function rounded(values: ArrayLike<number>, format: Format): Float64Array {
  const single = Float32Array.from(values);
  if (format === "f32") return Float64Array.from(single);
  if (format === "f16") return Float64Array.from(new Float16Array(single));
  const wide = Uint32Array.from(bf16Bits(single), (half) => half << 16);
  return Float64Array.from(new Float32Array(wide.buffer));
}

/**
 * Fails unless the values are as near to the expected ones as rounding to the format allows, within a factor of 2:
 * each element, and all of them in the root mean square.
 */
export function assertRounded(
  label: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  format: Format,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${label}: got ${actual.length} values, expected ${expected.length}`);
  }
  const unit = { f32: 2 ** -20, bf16: 2 ** -8, f16: 2 ** -11 }[format];
  const nearest = rounded(expected, format);
  const largest = nearest.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  let [squares, baseline] = [0, 0];
  for (let i = 0; i < actual.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    if (!(error <= 2 * unit * Math.abs(expected[i]!) + 1e-6 * largest)) {
      throw new Error(
        `${label} (${format}): value ${i} is ${actual[i]}, expected ${expected[i]}, nearest ${nearest[i]}`,
      );
    }
    squares += error ** 2;
    baseline += (nearest[i]! - expected[i]!) ** 2;
  }
  if (format !== "f32" && !(squares <= 4 * baseline + 1e-12 * largest ** 2)) {
    throw new Error(`${label} (${format}): error ${Math.sqrt(squares / baseline)}x that of rounding alone`);
  }
}

function f16Bits(values: Float32Array): Uint16Array<ArrayBuffer> {
  return new Uint16Array(new Float16Array(values).buffer);
}

function bf16Bits(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  return Uint16Array.from(bits, (wide) => (wide + 0x7fff + ((wide >>> 16) & 1)) >>> 16);
}
