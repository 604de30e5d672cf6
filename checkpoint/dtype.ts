import { UserError } from "../errors.ts";

/** Bytes per element of every element type that a safetensors header may name. */
export const DTYPE_BYTES = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
} as const;

/** An element type, named as safetensors does. */
export type Dtype = keyof typeof DTYPE_BYTES;

/** The types that trained weights are written in. */
export type FloatDtype = "F32" | "F16" | "BF16";

/** Is this the name of an element type we can hold? */
export function isDtype(name: string): name is Dtype {
  return Object.hasOwn(DTYPE_BYTES, name);
}

/** The bytes as whole elements of `size` bytes, at offset 0 of a buffer: a copy only if they are unaligned. */
function aligned(bytes: Uint8Array, size: number): { buffer: ArrayBuffer; offset: number; length: number } {
  if (bytes.byteLength % size !== 0) {
    throw new RangeError(`Cannot convert ${bytes.byteLength} bytes: not a multiple of ${size}`);
  }
  const usable = bytes.buffer instanceof ArrayBuffer && bytes.byteOffset % size === 0;
  const view = usable ? bytes as Uint8Array<ArrayBuffer> : new Uint8Array(bytes);
  return { buffer: view.buffer, offset: view.byteOffset, length: bytes.byteLength / size };
}

/** f32 bits of each of the 65,536 f16 values: a look-up is faster than arithmetic. */
let f16Bits: Uint32Array | undefined;

function f16ToF32(halves: Uint16Array): Float32Array<ArrayBuffer> {
  f16Bits ??= makeF16Bits();
  const table = f16Bits;
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = table[halves[i]!]!;
  return new Float32Array(bits.buffer);
}

function makeF16Bits(): Uint32Array {
  const table = new Uint32Array(65536);
  const scratch = new Float32Array(1);
  const scratchBits = new Uint32Array(scratch.buffer);
  for (let half = 0; half < 65536; half++) {
    const sign = (half & 0x8000) << 16;
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    if (exponent === 0) {
      scratch[0] = fraction * 2 ** -24;
      table[half] = sign | scratchBits[0]!;
    } else {
      const wide = exponent === 31 ? 255 : exponent + 112;
      table[half] = sign | (wide << 23) | (fraction << 13);
    }
  }
  return table;
}

function bf16ToF32(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16;
  return new Float32Array(bits.buffer);
}

function bigToF32(values: BigInt64Array | BigUint64Array): Float32Array<ArrayBuffer> {
  const out = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) out[i] = Number(values[i]);
  return out;
}

/**
 * The elements as f32. F16 and BF16 are exact, NaN bits included; F64 and wide integers round to nearest.
 * For F32 the result shares memory with `bytes` where alignment allows.
 * Throws a {@linkcode UserError} for the 8-bit float types and a RangeError for a partial last element.
 */
export function toF32(bytes: Uint8Array, dtype: Dtype): Float32Array<ArrayBuffer> {
  const { buffer, offset, length } = aligned(bytes, DTYPE_BYTES[dtype]);
  switch (dtype) {
    case "F32":
      return new Float32Array(buffer, offset, length);
    case "F16":
      return f16ToF32(new Uint16Array(buffer, offset, length));
    case "BF16":
      return bf16ToF32(new Uint16Array(buffer, offset, length));
    case "F64":
      return new Float32Array(new Float64Array(buffer, offset, length));
    case "I64":
      return bigToF32(new BigInt64Array(buffer, offset, length));
    case "U64":
      return bigToF32(new BigUint64Array(buffer, offset, length));
    case "I32":
      return new Float32Array(new Int32Array(buffer, offset, length));
    case "U32":
      return new Float32Array(new Uint32Array(buffer, offset, length));
    case "I16":
      return new Float32Array(new Int16Array(buffer, offset, length));
    case "U16":
      return new Float32Array(new Uint16Array(buffer, offset, length));
    case "I8":
      return new Float32Array(new Int8Array(buffer, offset, length));
    case "U8":
    case "BOOL":
      return new Float32Array(new Uint8Array(buffer, offset, length));
    case "F8_E4M3":
    case "F8_E5M2":
      throw new UserError(`Cannot use weights of type ${dtype}: use a version of the model in BF16 or F16`);
    default:
      return dtype satisfies never;
  }
}

function f32ToBf16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i]!;
    // Adding half a unit would turn some NaNs into inf, so they only lose their low bits and stay quiet.
    const isNaN = (x & 0x7fffffff) > 0x7f800000;
    halves[i] = isNaN ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
  return halves;
}

/** The values in another element type: rounded to nearest even, NaN kept, too large becomes inf. */
export function fromF32(values: Float32Array, dtype: FloatDtype): Uint8Array<ArrayBuffer> {
  switch (dtype) {
    case "F32":
      return new Uint8Array(new Float32Array(values).buffer);
    case "F16":
      return new Uint8Array(new Float16Array(values).buffer);
    case "BF16":
      return new Uint8Array(f32ToBf16(values).buffer);
    default:
      return dtype satisfies never;
  }
}

/** Bits of a word of one f32 or two halves: all exponents, and the lowest bit of each. */
const EXPONENTS: Record<FloatDtype, readonly [all: number, lowest: number]> = {
  F32: [0x7f800000, 0x00800000],
  BF16: [0x7f807f80, 0x00800080],
  F16: [0x7c007c00, 0x04000400],
};

/**
 * Whether no element is NaN or infinite, without converting them: adding the lowest bit of an exponent to one that is
 * all ones, and to no other, carries into the sign.
 */
export function allFinite(bytes: Uint8Array<ArrayBuffer>, dtype: FloatDtype): boolean {
  const view = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const words = new Int32Array(view.buffer, view.byteOffset, view.length >> 2);
  const [all, lowest] = EXPONENTS[dtype];
  let carried = 0;
  for (let i = 0; i < words.length; i++) carried |= (words[i]! & all) + lowest;
  const rest = toF32(bytes.subarray(words.length * 4), dtype);
  return (carried & (dtype === "F32" ? 0x80000000 : 0x80008000)) === 0 && rest.every(Number.isFinite);
}

/**
 * Throws a {@linkcode UserError} naming the tensor, the file or folder if given, and the first element that is NaN or
 * infinite.
 * @param options.first number of the first value in the tensor, where `values` are a part of its `of`
 */
export function assertFinite(
  name: string,
  values: Float32Array,
  { where, first = 0, of = values.length }: { where?: string; first?: number; of?: number } = {},
): void {
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    // NaN - NaN and inf - inf are both NaN, so one comparison finds either.
    if (value - value !== 0) {
      const file = where === undefined ? "" : ` of "${where}"`;
      throw new UserError(
        `Cannot use tensor "${name}"${file}: element ${first + i} of ${of} is ${value}. ` +
          `The weights are damaged or were saved from a diverged run: use another copy`,
      );
    }
  }
}
