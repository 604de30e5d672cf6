import { GpuError } from "./errors.ts";
import { rowChunks, rowsWithin } from "./shared/row_chunks.ts";
import { bytesPerElement, type Dtype, type Tensor } from "./tensor.ts";
import type { Transfers } from "./transfers.ts";

/** Way of tensors to host memory and back: see {@linkcode HostMemory}. */
export type HostCopies = "commands" | "javascript";

/** The part of a device's transfers that host memory needs. */
export type HostTransfers = Pick<Transfers, "isDry" | "copy" | "clear" | "write" | "readBytes">;

/** Most bytes on their way to JavaScript's memory at once: each piece passes through a buffer of its own. */
const PIECE_BYTES = 64 * 2 ** 20;

/** A tensor that waits in host memory. No kernel reads it; tensors of the device are copied here and back. */
export interface HostTensor {
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly byteLength: number;
  /**
   * Copies `from` here, as work recorded before left it. Once this has resolved it may be freed or overwritten.
   * @param from of the same dtype and width
   * @param firstRow where its rows come to lie; 0 unless given
   */
  store(from: Tensor, firstRow?: number): Promise<void>;
  /**
   * Copies what was stored to `into`. Work recorded once this has resolved sees it.
   * @param into of the same dtype and width
   * @param firstRow where its rows lie here; 0 unless given
   */
  load(into: Tensor, firstRow?: number): Promise<void>;
  /** Sets every byte to zero. */
  clear(): void;
  /** Reads its bytes, as stored last. */
  read(): Promise<Uint8Array>;
  /** Replaces all its bytes. */
  write(bytes: Uint8Array): Promise<void>;
  /** Gives its memory back. */
  free(): void;
}

/**
 * Host memory for tensors, counted apart from the device's.
 *
 * With "commands" a tensor lies in buffers that the host can map and that drivers therefore keep in its memory: copies
 * both ways are commands like any others, and nothing waits. WebGPU lets such buffers be copied to but not from; wgpu's
 * `mappable-primary-buffers` does. With "javascript" a tensor is read back to JavaScript's memory and uploaded again,
 * piece by piece. Some are always on their way back, while the device goes on with what is recorded after them.
 */
export class HostMemory {
  readonly copies: HostCopies;
  readonly #transfers: HostTransfers;
  readonly #allocate: (shape: readonly number[], dtype: Dtype, label: string) => Tensor;
  readonly #arrivals = new Arrivals();
  #liveBytes = 0;
  #peakBytes = 0;

  /** @param allocate makes a tensor of mappable buffers, for "commands" */
  constructor(
    transfers: HostTransfers,
    copies: HostCopies,
    allocate: (shape: readonly number[], dtype: Dtype, label: string) => Tensor,
  ) {
    this.#transfers = transfers;
    this.copies = copies;
    this.#allocate = allocate;
  }

  /** Bytes of host tensors now. */
  get liveBytes(): number {
    return this.#liveBytes;
  }

  /** The most bytes of host tensors at once since {@linkcode resetPeak}. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  /** Makes what is held now the peak. */
  resetPeak(): void {
    this.#peakBytes = this.#liveBytes;
  }

  /** Makes an uninitialised tensor. The caller frees it. */
  empty(shape: readonly number[], dtype: Dtype, label: string): HostTensor {
    const tensor = this.copies === "commands"
      ? new MappableTensor(this.#transfers, this.#allocate(shape, dtype, label), this.#uncount)
      : new JavaScriptTensor(this.#transfers, shape, dtype, this.#arrivals, this.#uncount);
    this.#liveBytes += tensor.byteLength;
    this.#peakBytes = Math.max(this.#peakBytes, this.#liveBytes);
    return tensor;
  }

  readonly #uncount = (bytes: number): void => {
    this.#liveBytes -= bytes;
  };
}

/** Host tensor of mappable buffers, which only copies touch. */
class MappableTensor implements HostTensor {
  readonly #transfers: HostTransfers;
  readonly #tensor: Tensor;
  readonly #onFree: (bytes: number) => void;

  constructor(transfers: HostTransfers, tensor: Tensor, onFree: (bytes: number) => void) {
    this.#transfers = transfers;
    this.#tensor = tensor;
    this.#onFree = onFree;
  }

  get shape(): readonly number[] {
    return this.#tensor.shape;
  }

  get dtype(): Dtype {
    return this.#tensor.dtype;
  }

  get byteLength(): number {
    return this.#tensor.byteLength;
  }

  store(from: Tensor, firstRow = 0): Promise<void> {
    requireFit(this, from, firstRow);
    this.#transfers.copy(from, this.#tensor.slice(firstRow, firstRow + from.rows));
    return Promise.resolve();
  }

  load(into: Tensor, firstRow = 0): Promise<void> {
    requireFit(this, into, firstRow);
    this.#transfers.copy(this.#tensor.slice(firstRow, firstRow + into.rows), into);
    return Promise.resolve();
  }

  clear(): void {
    this.#transfers.clear(this.#tensor);
  }

  async read(): Promise<Uint8Array> {
    const [bytes] = await this.#transfers.readBytes([this.#tensor]);
    return bytes!;
  }

  write(bytes: Uint8Array): Promise<void> {
    this.#transfers.write(this.#tensor, bytes);
    return Promise.resolve();
  }

  free(): void {
    this.#tensor.free();
    this.#onFree(this.byteLength);
  }
}

/** Reads on their way to JavaScript's memory: {@linkcode PIECE_BYTES} at most, or one piece. */
class Arrivals {
  readonly #expected: { readonly bytes: number; readonly arrival: Promise<void> }[] = [];
  #bytes = 0;

  /** Adds a read, and waits for the oldest while all together are too many bytes. */
  async expect(bytes: number, arrival: Promise<void>): Promise<void> {
    this.#expected.push({ bytes, arrival });
    this.#bytes += bytes;
    while (this.#expected.length > 1 && this.#bytes > PIECE_BYTES) {
      const oldest = this.#expected.shift()!;
      this.#bytes -= oldest.bytes;
      await oldest.arrival;
    }
  }
}

/** Host tensor in JavaScript's memory. */
class JavaScriptTensor implements HostTensor {
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly byteLength: number;
  readonly #transfers: HostTransfers;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #arrivals: Arrivals;
  /** Resolves when all that was stored here has arrived. */
  #stored: Promise<unknown> = Promise.resolve();
  readonly #onFree: (bytes: number) => void;

  constructor(
    transfers: HostTransfers,
    shape: readonly number[],
    dtype: Dtype,
    arrivals: Arrivals,
    onFree: (bytes: number) => void,
  ) {
    this.shape = shape;
    this.dtype = dtype;
    this.byteLength = shape.reduce((product, axis) => product * axis, bytesPerElement(dtype));
    this.#transfers = transfers;
    this.#bytes = new Uint8Array(transfers.isDry ? 0 : this.byteLength);
    this.#arrivals = arrivals;
    this.#onFree = onFree;
  }

  async store(from: Tensor, firstRow = 0): Promise<void> {
    requireFit(this, from, firstRow);
    for (const { start, end } of rowChunks(from.rows, rowsWithin(PIECE_BYTES, from.rowBytes))) {
      const arrival = this.#transfers.readBytes([from.slice(start, end)]).then(([bytes]) => {
        if (!this.#transfers.isDry) this.#bytes.set(bytes!, (firstRow + start) * from.rowBytes);
      });
      this.#stored = Promise.all([this.#stored, arrival]);
      // Whoever waits next is told of a failure; nobody may be waiting yet.
      this.#stored.catch(() => {});
      await this.#arrivals.expect((end - start) * from.rowBytes, arrival);
    }
  }

  async load(into: Tensor, firstRow = 0): Promise<void> {
    requireFit(this, into, firstRow);
    await this.#stored;
    const from = firstRow * into.rowBytes;
    if (!this.#transfers.isDry) {
      this.#transfers.write(into, this.#bytes.subarray(from, from + into.byteLength));
    }
  }

  clear(): void {
    this.#bytes.fill(0);
  }

  async read(): Promise<Uint8Array> {
    await this.#stored;
    return this.#bytes.slice();
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#stored;
    this.#bytes.set(bytes);
  }

  free(): void {
    this.#onFree(this.byteLength);
  }
}

function requireFit({ shape, dtype }: HostTensor, tensor: Tensor, firstRow: number): void {
  const width = shape.length < 2 ? 1 : shape.at(-1)!;
  const rows = shape.reduce((product, axis) => product * axis, 1) / width;
  if (tensor.dtype === dtype && tensor.width === width && firstRow + tensor.rows <= rows) return;
  throw new GpuError(
    `Cannot copy "${tensor.label}" [${tensor.shape}] ${tensor.dtype} to or from rows ${firstRow} on of a host tensor ` +
      `[${shape}] ${dtype}`,
  );
}
