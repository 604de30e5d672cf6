/** Tensors that are written without going to the device. */
import { assertFinite, DTYPE_BYTES, type FloatDtype, fromF32, toF32 } from "../checkpoint/dtype.ts";
import { UserError } from "../errors.ts";
import type { TensorLoader } from "../model/load/load.ts";

/** Numbers of a tensor that are on the host at once. */
const PIECE = 2 ** 22;

/** From here on values round to infinity. */
const LIMITS: Readonly<Record<"F16" | "BF16", number>> = { F16: 65520, BF16: 3.3961775e38 };

/**
 * A tensor of a checkpoint, piece by piece: bit for bit where the format stays.
 * @throws {UserError} as {@linkcode encode}, and if the tensor has another shape
 */
export async function* readOnHost(
  loader: TensorLoader,
  name: string,
  shape: readonly number[],
  dtype: FloatDtype,
): AsyncGenerator<Uint8Array> {
  const source = loader.open(name, shape);
  const of = shape.reduce((product, axis) => product * axis, 1);
  const size = DTYPE_BYTES[source.dtype];
  for (let first = 0; first < of; first += PIECE) {
    const bytes = new Uint8Array(Math.min(PIECE, of - first) * size);
    await source.readInto(first * size, bytes);
    const values = toF32(bytes, source.dtype);
    if (source.dtype === dtype) {
      assertFinite(name, values, { first, of });
      yield bytes;
    } else yield encode(name, values, dtype, { first, of });
  }
}

/**
 * The bytes of values in a format.
 * @param part where the values lie in the tensor, if they are not all of it
 * @throws {UserError} if a value is not finite, or too large for the format
 */
export function encode(
  name: string,
  values: Float32Array,
  dtype: FloatDtype,
  part = { first: 0, of: values.length },
): Uint8Array {
  assertFinite(name, values, part);
  const bytes = fromF32(values, dtype);
  const tooLarge = dtype === "F32" ? -1 : values.findIndex((value) => Math.abs(value) >= LIMITS[dtype]);
  if (tooLarge >= 0) {
    throw new UserError(
      `Cannot write tensor "${name}" as ${dtype}: element ${part.first + tooLarge} is ${
        values[tooLarge]
      }, too large for it. Use --dtype bf16 or fp32`,
    );
  }
  return bytes;
}
