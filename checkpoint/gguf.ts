/** GGUF files, version 3, as llama.cpp reads them (ggml's `docs/gguf.md`). */
import { UserError } from "../errors.ts";
import { assertFinite, type Dtype, toF32 } from "./dtype.ts";
import { saveFileAtomic, type StoreOptions } from "./atomic.ts";
import { writeAll } from "./files.ts";

/** Storage format of a tensor. */
export type GgufType = "F32" | "F16" | "BF16" | "Q8_0" | "Q4_0";

/** A value of the file's metadata; numbers say how they are stored. */
export type GgufValue =
  | string
  | boolean
  | { readonly u32: number }
  | { readonly f32: number }
  | { readonly strings: readonly string[] }
  | { readonly f32s: readonly number[] }
  | { readonly i32s: readonly number[] };

/** A tensor to write: rows of `width` numbers, the outermost axis first. */
export interface GgufTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: GgufType;
  /** Some whole rows as stored in the checkpoint; the first axis is the rows. */
  readonly readRows: (start: number, count: number) => Promise<{ bytes: Uint8Array; dtype: Dtype }>;
}

const TYPE_IDS: Readonly<Record<GgufType, number>> = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 8, BF16: 30 };
const ALIGNMENT = 32;
/** Numbers of one scale of Q8_0 and Q4_0. */
const BLOCK = 32;
/** Bytes of a block: its scale in F16, and the numbers. */
const BLOCK_BYTES = { Q8_0: 2 + BLOCK, Q4_0: 2 + BLOCK / 2 } as const;
const CHUNK_BYTES = 2 ** 25;

/** From here on a number becomes infinite; F32 holds whatever it is read from. */
const ENDS: Readonly<Record<GgufType, number>> = {
  F32: Infinity,
  F16: 65520,
  BF16: 0xff8 * 2 ** 116,
  Q8_0: 65520 * 127,
  Q4_0: 65520 * 8,
};

/** Bytes of `count` numbers. */
function ggufBytes(type: GgufType, count: number): number {
  if (hasBlocks(type)) return count / BLOCK * BLOCK_BYTES[type];
  return type === "F32" ? 4 * count : 2 * count;
}

/** Whether blocks of 32 numbers share a scale. */
export function hasBlocks(type: GgufType): type is keyof typeof BLOCK_BYTES {
  return type in BLOCK_BYTES;
}

/**
 * Writes a file, some rows of a tensor in memory at a time, under a temporary name until it is whole.
 * @throws {UserError} if it cannot be written, rows of a tensor in blocks are no multiple of 32, or a number is NaN,
 * infinite, or larger than its type can hold
 */
export async function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufValue>,
  tensors: readonly GgufTensor[],
  { onProgress, ...options }: StoreOptions & {
    onProgress?: (done: number, total: number, name: string) => void;
  } = {},
): Promise<void> {
  for (const { name, shape, type } of tensors) {
    if (hasBlocks(type) && shape.at(-1)! % BLOCK !== 0) {
      throw new UserError(
        `Cannot write "${name}" [${shape}] as ${type}: its rows are no multiple of ${BLOCK}`,
      );
    }
  }
  await saveFileAtomic(path, async (file) => {
    let at = await append(file, header(metadata, tensors));
    for (const [i, tensor] of tensors.entries()) {
      onProgress?.(i, tensors.length, tensor.name);
      at += await append(file, new Uint8Array(padding(at)));
      at += await appendTensor(file, tensor);
    }
  }, options);
}

async function append(file: Parameters<typeof writeAll>[0], bytes: Uint8Array): Promise<number> {
  await writeAll(file, bytes);
  return bytes.length;
}

async function appendTensor(file: Parameters<typeof writeAll>[0], tensor: GgufTensor): Promise<number> {
  const { name, shape, type } = tensor;
  const size = shape.reduce((product, axis) => product * axis, 1);
  const width = shape.length < 2 ? size : shape.at(-1)!;
  const rows = size / width;
  const most = Math.max(1, Math.floor(CHUNK_BYTES / (4 * width)));
  let written = 0;
  for (let start = 0; start < rows; start += most) {
    const { bytes, dtype } = await tensor.readRows(start, Math.min(most, rows - start));
    const values = toF32(bytes, dtype);
    assertFinite(name, values, { first: start * width, of: rows * width });
    const tooLarge = values.findIndex((value) => Math.abs(value) >= ENDS[type]);
    if (tooLarge >= 0) {
      throw new UserError(
        `Cannot write "${name}" as ${type}: element ${start * width + tooLarge} is ${
          values[tooLarge]
        }, which it cannot ` +
          `hold. Pass --outtype ${type === "BF16" ? "f32" : "bf16"}`,
      );
    }
    written += await append(file, dtype === type ? bytes : encodeGguf(values, type));
  }
  return written;
}

/** Numbers as a GGUF type stores them; rounds to nearest, ties to even, in F16 and BF16. */
export function encodeGguf(values: Float32Array, type: GgufType): Uint8Array {
  switch (type) {
    case "F32":
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    case "F16":
      return new Uint8Array(Float16Array.from(values).buffer);
    case "BF16":
      return bf16(values);
    case "Q8_0":
      return q8(values);
    case "Q4_0":
      return q4(values);
  }
}

function bf16(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return new Uint8Array(Uint16Array.from(bits, (word) => (word + 0x7fff + (word >>> 16 & 1)) >>> 16).buffer);
}

/** Blocks of 32 numbers: an f16 scale, largest / 127, and 32 signed bytes (ggml-quants.c, `quantize_row_q8_0`). */
function q8(values: Float32Array): Uint8Array {
  const blocks = values.length / BLOCK;
  const bytes = new Uint8Array(blocks * BLOCK_BYTES.Q8_0);
  const view = new DataView(bytes.buffer);
  for (let block = 0; block < blocks; block++) {
    const from = block * BLOCK;
    let largest = 0;
    for (let i = 0; i < BLOCK; i++) largest = Math.max(largest, Math.abs(values[from + i]!));
    const scale = Math.fround(largest / 127);
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    const at = block * BLOCK_BYTES.Q8_0;
    view.setFloat16(at, scale, true);
    for (let i = 0; i < BLOCK; i++) {
      const x = Math.fround(values[from + i]! * inverse);
      // Halves go away from zero, as C's roundf has it.
      view.setInt8(at + 2 + i, Math.sign(x) * Math.floor(Math.abs(x) + 0.5));
    }
  }
  return bytes;
}

/**
 * Blocks of 32 numbers: an f16 scale, the number of largest magnitude / -8, and 32 numbers of 4 bits, those of the first
 * half in the low bits (ggml-quants.c, `quantize_row_q4_0_ref`).
 */
function q4(values: Float32Array): Uint8Array {
  const blocks = values.length / BLOCK;
  const bytes = new Uint8Array(blocks * BLOCK_BYTES.Q4_0);
  const view = new DataView(bytes.buffer);
  for (let block = 0; block < blocks; block++) {
    const numbers = values.subarray(block * BLOCK, (block + 1) * BLOCK);
    let extreme = 0;
    for (const value of numbers) if (Math.abs(value) > Math.abs(extreme)) extreme = value;
    const scale = Math.fround(extreme / -8);
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    const code = (value: number) => Math.min(15, Math.trunc(Math.fround(Math.fround(value * inverse) + 8.5)));
    const at = block * BLOCK_BYTES.Q4_0;
    view.setFloat16(at, scale, true);
    for (let i = 0; i < BLOCK / 2; i++) {
      bytes[at + 2 + i] = code(numbers[i]!) | code(numbers[i + BLOCK / 2]!) << 4;
    }
  }
  return bytes;
}

function header(metadata: ReadonlyMap<string, GgufValue>, tensors: readonly GgufTensor[]): Uint8Array {
  const writer = new ByteWriter();
  writer.bytes(new TextEncoder().encode("GGUF"));
  writer.u32(3);
  writer.u64(tensors.length);
  writer.u64(metadata.size);
  for (const [key, value] of metadata) {
    if (typeof value === "object" && "f32" in value && !Number.isFinite(Math.fround(value.f32))) {
      throw new UserError(`Cannot write GGUF: ${key} is ${value.f32}, more than its 32 bits can hold`);
    }
    writer.text(key);
    writer.value(value);
  }
  let offset = 0;
  for (const { name, shape, type } of tensors) {
    writer.text(name);
    writer.u32(shape.length);
    for (const axis of [...shape].reverse()) writer.u64(axis);
    writer.u32(TYPE_IDS[type]);
    writer.u64(offset);
    offset += ggufBytes(type, shape.reduce((product, axis) => product * axis, 1));
    offset += padding(offset);
  }
  return writer.finish();
}

function padding(at: number): number {
  return (ALIGNMENT - at % ALIGNMENT) % ALIGNMENT;
}

/** Little-endian values one after the other. */
class ByteWriter {
  #buffer = new Uint8Array(1 << 16);
  #view = new DataView(this.#buffer.buffer);
  #length = 0;

  u32(value: number): void {
    this.#view.setUint32(this.#grow(4), value, true);
  }

  u64(value: number): void {
    this.#view.setBigUint64(this.#grow(8), BigInt(value), true);
  }

  f32(value: number): void {
    this.#view.setFloat32(this.#grow(4), value, true);
  }

  i32(value: number): void {
    this.#view.setInt32(this.#grow(4), value, true);
  }

  bytes(bytes: Uint8Array): void {
    const at = this.#grow(bytes.length);
    this.#buffer.set(bytes, at);
  }

  text(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u64(bytes.length);
    this.bytes(bytes);
  }

  value(value: GgufValue): void {
    if (typeof value === "string") {
      this.u32(8);
      this.text(value);
    } else if (typeof value === "boolean") {
      this.u32(7);
      this.bytes(Uint8Array.of(value ? 1 : 0));
    } else if ("u32" in value) {
      this.u32(4);
      this.u32(value.u32);
    } else if ("f32" in value) {
      this.u32(6);
      this.f32(value.f32);
    } else if ("strings" in value) {
      this.#list(8, value.strings, (text) => this.text(text));
    } else if ("f32s" in value) {
      this.#list(6, value.f32s, (number) => this.f32(number));
    } else this.#list(5, value.i32s, (number) => this.i32(number));
  }

  finish(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  #list<T>(type: number, items: readonly T[], write: (item: T) => void): void {
    this.u32(9);
    this.u32(type);
    this.u64(items.length);
    items.forEach(write);
  }

  /** Makes room and returns where it begins. */
  #grow(bytes: number): number {
    const at = this.#length;
    this.#length += bytes;
    if (this.#length > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(2 * this.#buffer.length, this.#length));
      larger.set(this.#buffer);
      this.#buffer = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}
