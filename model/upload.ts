import { assertFinite, type Dtype, DTYPE_BYTES, toF32 } from "../checkpoint/dtype.ts";
import { UserError } from "../errors.ts";
import { flagNonFinite } from "../kernels/elementwise/flag_non_finite.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { ROW_ALIGNMENT, type Tensor } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";

/** A tensor that is read by ranges of its bytes, row-major. */
export interface RowSource {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Fills `into` with the bytes from byte `from` on. */
  readInto(from: number, into: Uint8Array): Promise<void>;
}

/** Rows `start` to `end` of a source. The bytes are overwritten when the next chunk but one is asked for. */
interface Chunk {
  readonly start: number;
  readonly end: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** How the elements of each type go to the device; the others are made f32 on the host. */
const FORMATS: Partial<Record<Dtype, Format>> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** Small enough to stay in the processor's caches on its way, large enough to cost a few calls a millisecond. */
const CHUNK_BYTES = 4 * 2 ** 20;
/** The driver keeps what is written until it is done with it: this much at a time, twice. */
const WINDOW_BYTES = 64 * 2 ** 20;
/** Tensors whose flags are waited for together, and the most bytes they have: a wait costs 10 ms. */
const FLAGS = 1024;
const FLAG_BYTES = 4 * 2 ** 30;

/**
 * Moves tensors from files to the device by chunks of rows, reading one chunk while the one before it is uploaded. The
 * host holds two chunks, and what the driver has not copied yet.
 */
export class Uploader {
  readonly #gpu: Gpu;
  readonly #buffers: Uint8Array<ArrayBuffer>[] = [];
  /** Ends of the windows that the device is still working on, oldest first. */
  readonly #windows: Promise<void>[] = [];
  #windowBytes = 0;
  /** Of each source since the last {@linkcode check}: u32, 1 if it is not finite. */
  #flags: Tensor | undefined;
  #unchecked: RowSource[] = [];
  #uncheckedBytes = 0;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /** The format in which {@linkcode floats} brings elements of a type. */
  static formatOf(dtype: Dtype): Format {
    return FORMATS[dtype] ?? "f32";
  }

  /**
   * Uploads a tensor of floats, row range by row range.
   *
   * @param target where rows `start` to `end` go, in the format of {@linkcode formatOf}; if it was made for them alone,
   * `use` frees it
   * @param use records work on the rows after they are uploaded
   * @throws {UserError} as the source does; later, from {@linkcode check}, if elements are NaN or infinite
   */
  async floats(
    source: RowSource,
    target: (start: number, end: number) => Tensor,
    use: (rows: Tensor) => void = () => {},
  ): Promise<void> {
    const slot = await this.#takeSlot(source);
    for await (const { start, end, bytes } of this.#chunks(source)) {
      const rows = target(start, end);
      this.#gpu.write(rows, source.dtype in FORMATS ? bytes : toF32(bytes, source.dtype));
      flagNonFinite(this.#gpu, rows, this.#flags!, slot);
      use(rows);
      await this.#paced(rows.byteLength);
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

  /** @throws {UserError} naming the first element that is NaN or infinite of what was uploaded since the last check */
  async check(): Promise<void> {
    if (!this.#flags) return;
    const [flags, sources] = [this.#flags, this.#unchecked];
    this.#forget();
    const values = await this.#gpu.readU32(flags);
    flags.free();
    for (const [slot, source] of sources.entries()) {
      if (values[slot] !== 0) await this.#refuse(source);
    }
  }

  #forget(): void {
    this.#flags = undefined;
    this.#unchecked = [];
    this.#uncheckedBytes = 0;
  }

  async #takeSlot(source: RowSource): Promise<number> {
    if (this.#unchecked.length === FLAGS || this.#uncheckedBytes > FLAG_BYTES) await this.check();
    this.#flags ??= this.#gpu.zeros([FLAGS], "u32", "flags of tensors that are not finite");
    this.#uncheckedBytes += sizeOf(source.shape) * DTYPE_BYTES[source.dtype];
    return this.#unchecked.push(source) - 1;
  }

  /** Reads it once more, to name the element. */
  async #refuse(source: RowSource): Promise<never> {
    const width = source.shape.length < 2 ? 1 : source.shape.at(-1)!;
    for await (const { start, bytes } of this.#chunks(source)) {
      assertFinite(source.name, toF32(bytes, source.dtype), {
        first: start * width,
        of: sizeOf(source.shape),
      });
    }
    throw new UserError(`Cannot use tensor "${source.name}": it changed while it was being loaded`);
  }

  /** Chunks of whole rows, as many as fit, each read while the one before is used. */
  async *#chunks(source: RowSource): AsyncGenerator<Chunk> {
    const rowBytes = (source.shape.length < 2 ? 1 : source.shape.at(-1)!) * DTYPE_BYTES[source.dtype];
    const rows = sizeOf(source.shape) * DTYPE_BYTES[source.dtype] / rowBytes;
    const most = ROW_ALIGNMENT * Math.max(1, Math.floor(CHUNK_BYTES / rowBytes / ROW_ALIGNMENT));
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
    this.#windowBytes += bytes;
    if (this.#windowBytes < WINDOW_BYTES) return;
    this.#windowBytes = 0;
    const done = this.#gpu.settle();
    done.catch(() => {});
    this.#windows.push(done);
    if (this.#windows.length > 1) await this.#windows.shift();
  }
}

function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, axis) => product * axis, 1);
}
