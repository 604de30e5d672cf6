import { GpuError } from "./errors.ts";
import type { Failures } from "./failures.ts";
import type { DeviceMemory } from "./memory.ts";
import type { PooledBuffer } from "./pool.ts";
import type { Recorder } from "./recorder.ts";
import type { Tensor } from "./tensor.ts";
import type { Format } from "./wgsl.ts";

/** Values to write: f32, u32, or the bytes of any dtype. */
export type TensorValues = Float32Array | Uint32Array | Uint8Array;

/** Uploads wait in staging memory until a submit: give them one this often. */
const UPLOAD_CHUNK_BYTES = 64 * 2 ** 20;

/** A read that is recorded. Either {@linkcode bytes} or {@linkcode drop} is called, once. */
export interface Reading {
  /**
   * Waits for the bytes of each tensor. Sends the read if it was not sent; what was recorded after it is not sent. Natively
   * the call itself returns only when the device has done all that was sent.
   * @throws {GpuError} if anything has failed on the device
   */
  bytes(): Promise<Uint8Array<ArrayBuffer>[]>;
  /** Gives up. */
  drop(): void;
}

/** Moves values between host and device, and within the device, in the order of the dispatches around them. */
export class Transfers {
  /** Whether nothing is stored: then what is read is zero. */
  readonly isDry: boolean;
  readonly #device: GPUDevice;
  readonly #memory: DeviceMemory;
  readonly #recorder: Recorder;
  readonly #failures: Failures;
  readonly #afterRead: (() => Promise<void>) | undefined;

  /** @param options.afterRead called once the device has done the work before a read */
  constructor(
    device: GPUDevice,
    memory: DeviceMemory,
    recorder: Recorder,
    failures: Failures,
    { isDry, afterRead }: { readonly isDry: boolean; readonly afterRead: (() => Promise<void>) | undefined },
  ) {
    this.#device = device;
    this.#memory = memory;
    this.#recorder = recorder;
    this.#failures = failures;
    this.isDry = isDry;
    this.#afterRead = afterRead;
  }

  /** Sets every byte of the tensor to zero. */
  clear(tensor: Tensor): void {
    const encoder = this.#recorder.commands();
    for (const { buffer, offset, rows } of tensor.segments) {
      encoder.clearBuffer(buffer.gpu, offset, wholeWords(rows * tensor.rowBytes));
    }
  }

  /** Fills the tensor's buffers with NaN in every float format, far out of range as an index. */
  poison(tensor: Tensor): void {
    for (const { buffer, offset, rows } of tensor.segments) {
      const bytes = buffer.asked === tensor.byteLength ? buffer.size : wholeWords(rows * tensor.rowBytes);
      this.#upload(buffer.gpu, offset, new Uint8Array(bytes).fill(0xff));
    }
  }

  /**
   * Overwrites a tensor's values. Work recorded before sees the old values.
   * @throws {GpuError} if `values` are not as many bytes as it has
   */
  write(tensor: Tensor, values: TensorValues): void {
    if (values.byteLength !== tensor.byteLength) {
      throw new GpuError(
        `Cannot fill "${tensor.label}" [${tensor.shape}] of ${tensor.byteLength} bytes with ${values.byteLength} bytes`,
      );
    }
    const bytes = new Uint8Array(values.buffer as ArrayBuffer, values.byteOffset, values.byteLength);
    for (const { buffer, start, rows, offset } of tensor.segments) {
      const from = start * tensor.rowBytes;
      this.#upload(buffer.gpu, offset, bytes.subarray(from, from + rows * tensor.rowBytes));
    }
  }

  /**
   * Copies all of `from` to `to`, which has the same shape and dtype.
   * @throws {GpuError} if they differ in rows or bytes
   */
  copy(from: Tensor, to: Tensor): void {
    if (from.byteLength !== to.byteLength || from.rows !== to.rows) {
      throw new GpuError(`Cannot copy "${from.label}" [${from.shape}] to "${to.label}" [${to.shape}]`);
    }
    const encoder = this.#recorder.commands();
    for (const target of to.segments) {
      for (const source of from.slice(target.start, target.start + target.rows).segments) {
        encoder.copyBufferToBuffer(
          source.buffer.gpu,
          source.offset,
          target.buffer.gpu,
          target.offset + source.start * to.rowBytes,
          source.rows * to.rowBytes,
        );
      }
    }
  }

  /**
   * Reads the bytes of several tensors, after all recorded work; one wait for all of them.
   * @throws {GpuError} if anything has failed on the device
   */
  async readBytes(tensors: readonly Tensor[]): Promise<Uint8Array<ArrayBuffer>[]> {
    return await this.startRead(tensors).bytes();
  }

  /** Records a read of the bytes that several tensors have after all work recorded so far. They may then be freed. */
  startRead(tensors: readonly Tensor[]): Reading {
    const lengths = tensors.map(({ byteLength }) => byteLength);
    const stagings = tensors.map((tensor) => {
      // Taking a buffer may submit what is recorded, so the encoder is asked for after that.
      const staging = this.#memory.takeStaging(tensor.byteLength, `read ${tensor.label}`);
      const encoder = this.#recorder.commands();
      for (const { buffer, start, rows, offset } of tensor.segments) {
        const length = wholeWords(rows * tensor.rowBytes);
        encoder.copyBufferToBuffer(buffer.gpu, offset, staging.gpu, start * tensor.rowBytes, length);
      }
      return staging;
    });
    this.#recorder.seal();
    const { submits } = this.#recorder;
    return {
      bytes: async () => {
        if (submits === this.#recorder.submits) this.#recorder.submit();
        return await this.#map(stagings, lengths);
      },
      drop: () => this.#memory.giveStaging(stagings),
    };
  }

  /** Waits for buffers that were copied to, and gives them back. @param lengths bytes of each */
  async #map(
    stagings: readonly PooledBuffer[],
    lengths: readonly number[],
  ): Promise<Uint8Array<ArrayBuffer>[]> {
    try {
      // Without compilers to wait for, the wait for the device begins at once.
      if (!this.#recorder.isCompiled) await this.#recorder.compiled();
      await Promise.all(stagings.map(({ gpu }) => gpu.mapAsync(GPUMapMode.READ)));
      this.#failures.check();
      await this.#afterRead?.();
      return stagings.map(({ gpu }, i) => {
        const byteLength = lengths[i]!;
        const mapped = gpu.getMappedRange(0, wholeWords(byteLength));
        // A copy of zeros that nobody wrote would make them real.
        const bytes = new Uint8Array(this.isDry ? mapped : mapped.slice(0, byteLength));
        gpu.unmap();
        return bytes;
      });
    } catch (error) {
      return await this.#failures.explain(error);
    } finally {
      this.#memory.giveStaging(stagings);
    }
  }

  /** Sends what is recorded and written: drivers then free the copies that they keep of what was written. */
  flush(): void {
    this.#recorder.submit();
    this.#device.queue.submit([]);
  }

  /** A write goes ahead of work that is recorded but not submitted, so that goes first. */
  #upload(buffer: GPUBuffer, offset: number, bytes: Uint8Array<ArrayBuffer>): void {
    this.#recorder.submit();
    const { queue } = this.#device;
    for (let at = 0; at < bytes.length; at += UPLOAD_CHUNK_BYTES) {
      const chunk = bytes.subarray(at, at + UPLOAD_CHUNK_BYTES);
      const whole = chunk.length - chunk.length % 4;
      if (whole > 0) queue.writeBuffer(buffer, offset + at, chunk, 0, whole);
      if (whole < chunk.length) {
        const tail = new Uint8Array(4);
        tail.set(chunk.subarray(whole));
        queue.writeBuffer(buffer, offset + at + whole, tail);
      }
      if (bytes.length > UPLOAD_CHUNK_BYTES) queue.submit([]);
    }
  }
}

/** The bytes of a float tensor as f32. */
export function toFloat32(bytes: Uint8Array<ArrayBuffer>, format: Format): Float32Array {
  if (format === "f32") return new Float32Array(bytes.buffer);
  if (format === "f16") return Float32Array.from(new Float16Array(bytes.buffer));
  const bits = Uint32Array.from(new Uint16Array(bytes.buffer), (half) => half << 16);
  return new Float32Array(bits.buffer);
}

/** Copies go by words of 4 bytes. */
function wholeWords(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}
