import {
  allFinite,
  assertFinite,
  type Dtype,
  DTYPE_BYTES,
  type FloatDtype,
  toF32,
} from "../../checkpoint/dtype.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { ROW_ALIGNMENT, type Tensor } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";

/** A tensor that is read by ranges of its bytes, row-major. */
export interface RowSource {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Fills `into` with the bytes from byte `from` on. */
  readInto(from: number, into: Uint8Array): Promise<void>;
}

/** Rows `start` to `end` of a source. The bytes are overwritten after the next chunk was asked for. */
interface Chunk {
  readonly start: number;
  readonly end: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Formats in which elements of each type go to the device; the others are made f32 on the host. */
const FORMATS: Partial<Record<Dtype, Format>> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** Read at once: enough that waking the thread that reads does not count. */
const READ_BYTES = 8 * 2 ** 20;
/** Checked and written at once: stays in the processor's cache in between. */
const CHUNK_BYTES = 2 * 2 ** 20;
/** The driver keeps what is written until it is done with it: this much at a time, twice. */
const WINDOW_BYTES = 64 * 2 ** 20;

/**
 * Moves tensors from files to the device by chunks of rows, reading ahead while they are uploaded. The host holds two
 * reads, and what the driver is not done with.
 */
export class Uploader {
  readonly #gpu: Gpu;
  readonly #buffers: Uint8Array<ArrayBuffer>[] = [];
  /** Ends of the windows that the device is still working on, oldest first. */
  readonly #windows: Promise<void>[] = [];
  #windowBytes = 0;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /** The format in which {@linkcode floats} brings elements of a type. */
  static formatOf(dtype: Dtype): Format {
    return FORMATS[dtype] ?? "f32";
  }

  /**
   * Reads a tensor of floats, row range by row range.
   *
   * @param use writes rows `start` to `end` to the device, in the format of {@linkcode formatOf}, and records the work
   * on them
   * @throws {UserError} as the source does, and if an element is NaN or infinite, naming the first
   */
  async floats(
    source: RowSource,
    use: (values: Uint8Array | Float32Array, start: number, end: number) => void,
  ): Promise<void> {
    for await (const chunk of this.#chunks(source)) {
      use(finite(source, chunk), chunk.start, chunk.end);
      await this.#paced(chunk.bytes.length);
    }
  }

  /** Uploads bytes as they are: `source` and `target` hold as many. */
  async bytes(source: RowSource, target: Tensor): Promise<void> {
    const whole = { ...source, shape: target.shape, dtype: "U32" as const };
    for await (const { start, end, bytes } of this.#chunks(whole)) {
      this.#gpu.write(target.slice(start, end), bytes);
      await this.#paced(bytes.length);
    }
  }

  async *#chunks(source: RowSource): AsyncGenerator<Chunk> {
    const rowBytes = widthOf(source) * DTYPE_BYTES[source.dtype];
    const step = rowsIn(CHUNK_BYTES, rowBytes);
    for await (const { start, end, bytes } of this.#reads(source, rowBytes)) {
      for (let from = start; from < end; from += step) {
        const to = Math.min(from + step, end);
        yield {
          start: from,
          end: to,
          bytes: bytes.subarray((from - start) * rowBytes, (to - start) * rowBytes),
        };
      }
    }
  }

  /** Each is read while the one before is used. */
  async *#reads(source: RowSource, rowBytes: number): AsyncGenerator<Chunk> {
    const rows = sizeOf(source.shape) / widthOf(source);
    const most = rowsIn(READ_BYTES, rowBytes);
    const read = (start: number): Promise<Chunk> => {
      const end = Math.min(start + most, rows);
      const bytes = this.#buffer(start / most % 2, (end - start) * rowBytes);
      const reading = source.readInto(start * rowBytes, bytes).then(() => ({ start, end, bytes }));
      // Awaited below, unless the chunk before it fails first.
      reading.catch(() => {});
      return reading;
    };
    let next: Promise<Chunk> | undefined = read(0);
    while (next) {
      const chunk: Chunk = await next;
      next = chunk.end < rows ? read(chunk.end) : undefined;
      yield chunk;
    }
  }

  #buffer(index: number, length: number): Uint8Array<ArrayBuffer> {
    const held = this.#buffers[index];
    if (held && held.length >= length) return held.subarray(0, length);
    return this.#buffers[index] = new Uint8Array(length);
  }

  /** Waits where the device is two windows behind. */
  async #paced(bytes: number): Promise<void> {
    // The driver keeps a copy of what is written until a submit that follows is done. Taken from fresh memory at every
    // write, such copies cost three times what they do where the last ones are free by then.
    this.#gpu.flush();
    this.#windowBytes += bytes;
    if (this.#windowBytes < WINDOW_BYTES) return;
    this.#windowBytes = 0;
    const done = this.#gpu.settle();
    done.catch(() => {});
    this.#windows.push(done);
    if (this.#windows.length > 1) await this.#windows.shift();
  }
}

/** The elements of a chunk as they go to the device. @throws {UserError} if one is NaN or infinite */
function finite(source: RowSource, { start, bytes }: Chunk): Uint8Array | Float32Array {
  const { name, dtype, shape } = source;
  if (dtype in FORMATS && allFinite(bytes, dtype as FloatDtype)) return bytes;
  const values = toF32(bytes, dtype);
  assertFinite(name, values, { first: start * widthOf(source), of: sizeOf(shape) });
  return values;
}

/** As many whole rows as fit, of those that a slice of a tensor may begin with; at least the fewest of them. */
function rowsIn(bytes: number, rowBytes: number): number {
  return ROW_ALIGNMENT * Math.max(1, Math.floor(bytes / rowBytes / ROW_ALIGNMENT));
}

/** Elements in a row. */
function widthOf({ shape }: RowSource): number {
  return shape.length < 2 ? 1 : shape.at(-1)!;
}

function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, axis) => product * axis, 1);
}
